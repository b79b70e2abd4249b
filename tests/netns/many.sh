#!/usr/bin/env bash
# Fifty peers on one daemon: all come up at once, each one answers, all go down, and nothing is left.
cd "$(dirname "$0")" || exit 99
. ./tap.sh
. ./lab.sh
. ../bench/scale_lab.sh
PEERS=50

reason=$(lab_need_root) || tap_skip_all "$reason"
[ -x "${abs_top_builddir:-/nonexistent}/tests/netns/root/usr/local/sbin/q2q-tund" ] ||
    tap_bail "q2q-tun is not installed into tests/netns/root; run this by make check"
scale_lab many $PEERS || tap_bail "the lab"

tap "$PEERS peers come up by themselves" scale_wait_up $PEERS 60

all_have_interfaces() {
    [ "$(on dut ip -o link | grep -c ': q2q-p')" -eq $PEERS ]
}
tap "each has an interface" all_have_interfaces

addresses() {
    on dut q2q-tun --json status | python3 -c "
import json,sys
peers=json.load(sys.stdin)['peers']
assert len(peers)==$PEERS and all(p['state']=='up' for p in peers), [p['state'] for p in peers]
v4=[p['ipv4'] for p in peers]
assert len(set(v4))==$PEERS and len({p['interface'] for p in peers})==$PEERS
print('\n'.join(v4))"
}
tap "no two share an address or an interface" addresses

every_one_answers() {
    local address
    for address in $(addresses); do
        on dut ping -q -c 1 -W 5 "$address" >/dev/null || { echo "$address does not answer"; return 1; }
    done
}
tap "every one answers a ping" every_one_answers
tap "all go down" on dut q2q-tun down --all
no_interface() {
    ! on dut ip -o link | grep ': q2q-'
}
tap "no interface is left" wait_for 30 no_interface
files_of_daemon() {
    on dut sh -c 'ls /proc/$(pgrep -n -x q2q-tund)/fd | wc -l'
}
few_files() {
    [ "$(files_of_daemon)" -le $((24 + 6 * (SCALE_WORKERS - 1))) ]
}
tap "nor a descriptor of one" wait_for 30 few_files
tap "the daemon ends in order" lab_end dut q2q-tund
clean_log() {
    ! grep -E 'Sanitizer|runtime error|Assertion|signal 11' "$LAB_DIR"/dut-q2q-tund.log "$LAB_DIR/load.out"
}
kill -TERM "$SCALE_LOAD"
wait_for 60 eval "! kill -0 $SCALE_LOAD"
tap "and nobody complains" clean_log
tap_done
