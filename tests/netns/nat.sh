#!/usr/bin/env bash
# Some pairs of contrib/nat-matrix: what theory says is direct is, and the rest works by relay.
# Those whose ports are guessed are 50 ms apart: only then do the guesses of the two sides cross.
cd "$(dirname "$0")" || exit 99
. ./tap.sh
. ./lab.sh
. ./nat_lab.sh
nat_lab_start nat || tap_bail "the lab"

# pair A B SECONDS: their tunnel does what theory says.
pair() {
    local run
    run=$(nat_lab_run "$1" "$2" "$3" | tail -n 1)
    echo "$run" | cut -c1-600
    /usr/bin/python3 - "$run" "$4" <<'PYTHON'
import json, sys
run, theory = json.loads(sys.argv[1]), sys.argv[2]
assert run["ok"], "no packet came through"
assert theory == "relay" or run["direct_ms"] is not None, "not direct"
assert theory != "relay" or run["path"]["kind"].startswith("relay"), "direct?"
PYTHON
}

# check A KIND-A B KIND-B
check() {
    local theory seconds=30
    [ -n "${NAT_LAB_MADE[$1]:-}" ] || nat_lab_side "$1" "$2" || tap_bail "$2"
    [ -n "${NAT_LAB_MADE[$3]:-}" ] || nat_lab_side "$3" "$4" || tap_bail "$4"
    theory=$(./nat_report.py theory "$2" "$4")
    [ "$theory" != relay ] || seconds=2
    nat_lab_meet "$1" "$3" || tap_bail "$1 and $3 do not meet"
    tap "$2 and $4: $theory" pair "$1" "$3" "$seconds" "$theory"
}

check home easy open easy-open-input
check carried double open easy-open-input
check sym hard public public
check sym hard block carrier
check quiet no-udp home easy
tap "doctor says that UDP is blocked" wait_for 40 says 'UDP is blocked' on quiet q2q-tun doctor
on quiet nft -f - <<'NFT'
table inet own {
  chain out {
    type filter hook output priority 0;
    meta l4proto udp udp dport 9 drop;
  }
}
NFT
tap "and finds a rule of this machine that drops UDP" says 'inet own out drops UDP' on quiet q2q-tun doctor
tap "it names the server's program" says 'server.test is connected: q2q-server' on quiet q2q-tun doctor
tap "and finds that the clocks agree" says 'clock agrees with that of its server' on quiet q2q-tun doctor
tap "status shows each pair with its reason" says 'reflexive|host' on quiet q2q-tun status home@server.test
check six v6 dual dual
if command -v tayga >/dev/null; then
    check six64 nat64 dual dual
fi
for kind in lan neighbours; do
    nat_lab_pair_sides "$kind-a" "$kind-b" $kind || tap_bail "$kind"
    nat_lab_meet "$kind-a" "$kind-b" || tap_bail "$kind: they do not meet"
    theory=$(./nat_report.py theory $kind $kind)
    tap "$kind: $theory" pair "$kind-a" "$kind-b" 3 "$theory"
done
tap "doctor says that both are behind one NAT" says 'both machines are behind one NAT, 198.18' \
    on neighbours-a q2q-tun doctor neighbours-b@server.test

# The distance holds from here on, for whatever passes the core.
NAT_LAB_RTT_MS=50
nat_lab_distance || tap_bail "no distance"
check sym hard home easy
check steps hard-sequential home easy
check steps hard-sequential even hard-sequential

# No program of the lab's machines has a clock of its own, so this one's is bent.
clock_ahead() {
    lab_daemon_end home && spawn home home-ahead.log env AHEAD_S=600 \
        LD_PRELOAD="$abs_top_builddir/tests/netns/.libs/ahead.so" \
        ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0" q2q-tund --foreground
}
clock_ahead || tap_bail "a daemon with another clock"
tap "doctor says by how much the clock is wrong" wait_for 30 \
    says 'clock is (599|600|601) s ahead of that of the server of server.test' on home q2q-tun doctor
tap "and what to do" says 'compare both with the real time \(timedatectl here\)' on home q2q-tun doctor
tap_done
