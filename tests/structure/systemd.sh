#!/bin/sh
# The units: well formed, and as closed as we say they are.
command -v systemd-analyze >/dev/null || { echo "1..0 # SKIP systemd-analyze is missing (package systemd)"; exit 0; }
dir=$(mktemp -d /tmp/q2q-units.XXXXXX)
trap 'rm -rf "$dir"' EXIT
units="q2q-tun.service q2q-tun@.service"
[ -f "$abs_top_builddir/systemd/q2q-server.service" ] && units="$units q2q-server.service"
n=0
for unit in $units; do n=$((n + 2)); done
echo "1..$n"

limit_of() {
    case $1 in
    q2q-tun.service) echo 20 ;;
    *) echo 15 ;;
    esac
}

n=0
for unit in $units; do
    # Programs that are not installed here would be complained about.
    sed -E 's,^(Exec[A-Za-z]*=)[^ ]*/q2q-,\1/bin/true --q2q-,' "$abs_top_builddir/systemd/$unit" >"$dir/$unit"
done
for unit in $units; do
    name=$(echo "$unit" | sed 's/@\./@x./')
    n=$((n + 1))
    out=$(SYSTEMD_UNIT_PATH="$dir:" systemd-analyze verify --man=no "$dir/$name" 2>&1 | grep -F "$dir")
    if [ -z "$out" ]; then echo "ok $n - $unit is well formed"; else
        echo "$out" | sed 's/^/# /'
        echo "not ok $n - $unit is well formed"
    fi
    n=$((n + 1))
    score=$(SYSTEMD_UNIT_PATH="$dir:" systemd-analyze security --offline=true "$dir/$unit" 2>&1 |
        sed -nE 's/.*Overall exposure level for .*: ([0-9]+)\.([0-9]).*/\1\2/p')
    if [ -n "$score" ] && [ "$score" -le "$(limit_of "$unit")" ]; then
        echo "ok $n - $unit: exposure $score tenths, at most $(limit_of "$unit")"
    else
        SYSTEMD_UNIT_PATH="$dir:" systemd-analyze security --offline=true "$dir/$unit" 2>&1 | grep -E '✗|Overall' | sed 's/^/# /'
        echo "not ok $n - $unit: exposure '$score' tenths, at most $(limit_of "$unit")"
    fi
done
