#!/bin/sh
# The picture of doc/architecture.md, enforced: a folder of src/ includes only
# from the lines below its own. One TAP case per folder.
set -u
cd "${abs_top_srcdir:-.}/src" || exit 99

line_of() {
    case $1 in
    base) echo 0 ;;
    amp | stun | crypto) echo 1 ;;
    q2q | nat | ptcp | tun) echo 2 ;;
    net) echo 3 ;;
    ctl | session | relay | store | conf) echo 4 ;;
    cli | daemon | monitor | server | nss | upnp) echo 5 ;;
    *) echo -1 ;;
    esac
}

# monitor and daemon are the two processes of one program: the monitor's main() starts the daemon.
excepted() {
    [ "$1 $2" = "monitor daemon" ]
}

check_folder() {
    own=$(line_of "$1")
    if [ "$own" -lt 0 ]; then
        echo "src/$1 has no line in the picture"
        return
    fi
    grep -HnoE '^#include "[a-z0-9_]+/' "$1"/*.[ch] 2>/dev/null |
        while IFS=: read -r file number include; do
            other=$(echo "$include" | sed -E 's/#include "//; s,/$,,')
            [ "$other" = "$1" ] && continue
            excepted "$1" "$other" && continue
            if [ "$(line_of "$other")" -ge "$own" ] || [ "$(line_of "$other")" -lt 0 ]; then
                echo "src/$file:$number includes $other"
            fi
        done
    # What is private to a folder stays there: from outside only FOLDER/FOLDER.h (base has names.h too).
    grep -HnE '^#include "[a-z0-9_]+/[a-z0-9_]+\.h"' "$1"/*.[ch] 2>/dev/null |
        while IFS=: read -r file number include; do
            path=$(echo "$include" | sed -E 's/.*"(.*)"/\1/')
            folder=${path%%/*}
            [ "$folder" = "$1" ] && continue
            [ "$path" = "$folder/$folder.h" ] && continue
            [ "$path" = "base/names.h" ] && continue
            echo "src/$file:$number includes $path, which is private to $folder"
        done
}

folders=$(find . -mindepth 1 -maxdepth 1 -type d | sed 's,^\./,,' | sort)
# shellcheck disable=SC2086
set -- $folders
echo "1..$#"
n=0
for folder in "$@"; do
    n=$((n + 1))
    bad=$(check_folder "$folder")
    if [ -z "$bad" ]; then
        echo "ok $n - src/$folder includes only from below"
    else
        echo "$bad" | sed 's/^/# /'
        echo "not ok $n - src/$folder includes only from below"
    fi
done
