#!/bin/sh
# Calls that have no place in this tree, and the words that mark unfinished work.
set -u
cd "${abs_top_srcdir:-.}" || exit 99
n=0

# check NAME PATTERN [PATH...]: fails if a C file under src/, or these files and folders of it, matches.
check() {
    n=$((n + 1))
    name=$1 pattern=$2
    shift 2
    [ $# -gt 0 ] || set -- src
    bad=$(grep -rnE --include='*.[ch]' "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*(\*|/\*|//)')
    if [ -z "$bad" ]; then
        echo "ok $n - $name"
    else
        echo "$bad" | sed 's/^/# /'
        echo "not ok $n - $name"
    fi
}

echo "1..6"
check "no unbounded string function" '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|stpcpy)\('
check "no number parsing without errors" '\b(atoi|atol|atoll|atof)\('
# A member or a longer name that ends so is another function.
check "no weak random numbers" '(^|[^.>_[:alnum:]])(rand|srand|random|drand48)\('
check "no shell" '\b(system|popen)\('
check "no mark of unfinished work" '\b(TODO|FIXME|XXX|HACK)\b'
# Timeouts must have passed when the machine wakes up. The protocol of systemd's service manager asks for the other clock.
# shellcheck disable=SC2046
check "no clock that stops while the machine sleeps" '\bCLOCK_MONOTONIC' \
    $(find src/base src/cli src/daemon src/net -name '*.[ch]' ! -path src/base/notify.c)
