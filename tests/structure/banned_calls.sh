#!/bin/sh
# Calls that have no place in this tree, and the words that mark unfinished work.
set -u
cd "${abs_top_srcdir:-.}" || exit 99
n=0

# check NAME PATTERN: fails if a C file under src/ matches.
check() {
    n=$((n + 1))
    bad=$(grep -rnE --include='*.[ch]' "$2" src/ | grep -vE '^[^:]+:[0-9]+:[[:space:]]*(\*|/\*|//)')
    if [ -z "$bad" ]; then
        echo "ok $n - $1"
    else
        echo "$bad" | sed 's/^/# /'
        echo "not ok $n - $1"
    fi
}

echo "1..5"
check "no unbounded string function" '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|stpcpy)\('
check "no number parsing without errors" '\b(atoi|atol|atoll|atof)\('
# A member or a longer name that ends so is another function.
check "no weak random numbers" '(^|[^.>_[:alnum:]])(rand|srand|random|drand48)\('
check "no shell" '\b(system|popen)\('
check "no mark of unfinished work" '\b(TODO|FIXME|XXX|HACK)\b'
