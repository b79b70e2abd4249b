#!/usr/bin/env bash
# Both sides at once, and one side again and again: `up` from both ends in the
# same moment, up and down in quick succession.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab glare
tunnel_lab_register
tunnel_lab_up

# Both take it down, then both ask at once.
once() {
    local a b
    on alice q2q-tun down bob@server.test & a=$!
    on bob q2q-tun down alice@server.test & b=$!
    wait $a && wait $b || return 1
    on alice q2q-tun up bob@server.test --wait 30 & a=$!
    on bob q2q-tun up alice@server.test --wait 30 & b=$!
    wait $a && wait $b || { echo "round $1: up failed"; return 1; }
    peer_state_is alice up && peer_state_is bob up || { echo "round $1: not up"; return 1; }
}
many_times() {
    local i
    for i in $(seq "$1"); do
        once "$i" || return
    done
}
start=$SECONDS
tap "50 times both ask at once, and both are up each time" many_times 50
echo "# it took $((SECONDS - start)) s"
tap "packets go" on alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q

quickly() {
    local i
    for i in $(seq 20); do
        on alice q2q-tun up bob@server.test --wait 0 >/dev/null || { echo "up $i"; return 1; }
        on alice q2q-tun down bob@server.test || { echo "down $i"; return 1; }
    done
}
tap "20 times up, and down before it is up" quickly
tap "and then it comes up" on alice q2q-tun up bob@server.test --wait 30
tap "with one interface" eval '[ "$(on alice ip -br link | grep -c ^q2q-)" = 1 ]'
tap "over which packets go" on alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q

# Forgetting takes the link away without waiting for the other side.
forget_and_return() {
    local i
    for i in $(seq 5); do
        on alice q2q-tun peers forget bob@server.test || return
        on alice q2q-tun up bob@server.test --yes --wait 30 || { echo "round $i"; return 1; }
    done
}
tap "forgotten and called again, it comes up each time" forget_and_return
tap "no process has ended meanwhile" eval \
    '[ "$(on alice pgrep -cx q2q-tund -r R,S,D)" = 2 ] && [ "$(on bob pgrep -cx q2q-tund -r R,S,D)" = 2 ]'
tap_done
