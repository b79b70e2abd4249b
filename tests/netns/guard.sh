#!/usr/bin/env bash
# Virtual addresses are for what comes through tunnels: a neighbour on the same network who sends
# packets to them gets no answer (CVE-2019-14899), and everybody else's packets pass.
. "$(dirname "${BASH_SOURCE[0]}")/tunnel_lab.sh"

tunnel_lab guard
tunnel_lab_register
# Somebody on alice's own network, who has guessed her virtual addresses.
lab_host mallory
on nat-a ip link add br0 type bridge
on nat-a ip addr flush dev lan
on nat-a ip link set lan master br0
lab_link nat-a 10.9.9.1/32 mallory 10.1.0.66/24 lan2 eth0
on nat-a ip link set lan2 master br0
on nat-a ip addr add 10.1.0.1/24 dev br0
on nat-a ip link set br0 up
on alice ip addr add fd00:1::2/64 dev eth0
on mallory ip addr add fd00:1::66/64 dev eth0
tunnel_lab_up
on alice q2q-tun wait bob@server.test --timeout 60 >/dev/null || tap_bail "up"
BOB4=$(status_of alice "['peers'][0]['ipv4']") BOB6=$(status_of alice "['peers'][0]['ipv6']")
ALICE4=$(status_of alice "['self']['ipv4']") ALICE6=$(status_of alice "['self']['ipv6']")
on mallory ip route add "$ALICE4" via 10.1.0.2
on mallory ip -6 route add "$ALICE6" via fd00:1::2

answers() {
    on "$1" ping -q -c 2 -i 0.2 -W 2 "$2"
}
silent() {
    ! on "$1" ping -q -c 2 -i 0.2 -W 1 "$2"
}
# The same with the address of a peer, which is what an attacker would use.
as_bob_silent() {
    on mallory ip addr add "$1" dev lo
    ! on mallory ping -q -c 2 -i 0.2 -W 1 -I "${1%/*}" "$2"
    local result=$?
    on mallory ip addr del "$1" dev lo
    return $result
}
dropped() {
    [ "$(on alice nft -j list ruleset | python3 -c '
import json, sys
print(sum(e["counter"]["packets"] for each in json.load(sys.stdin)["nftables"] if "rule" in each
          and each["rule"]["table"].startswith("q2q-tun") for e in each["rule"]["expr"] if "counter" in e))')" -ge "$1" ]
}
no_rules() {
    ! on alice nft list tables | grep q2q-tun
}

tap "the neighbour reaches alice on their network" answers mallory 10.1.0.2
tap "also by IPv6" answers mallory fd00:1::2
tap "but not her virtual IPv4 address" silent mallory "$ALICE4"
tap "nor her virtual IPv6 address" silent mallory "$ALICE6"
tap "nor as if he were bob" as_bob_silent "$BOB4/32" "$ALICE4"
tap "nor so by IPv6" as_bob_silent "$BOB6/128" "$ALICE6"
tap "since his packets were dropped" dropped 6
tap "bob reaches her" answers bob "$(status_of bob "['peers'][0]['ipv4']")"
tap "by IPv6 too" answers bob "$ALICE6"
tap "she reaches bob" answers alice "$BOB4"
tap "and herself" answers alice "$ALICE4"
tap "and herself by IPv6" answers alice "$ALICE6"
tap "doctor says so" says 'reached through tunnels alone' on alice q2q-tun doctor
tap "rules of others are left alone" on alice nft add table inet others
on alice nft flush ruleset
tap "a flush of the firewall does not open it" silent mallory "$ALICE4"
on alice nft add table inet others
lab_end alice q2q-tund KILL
tap "killed, the daemon leaves no rules" wait_for 30 no_rules
tap "and takes none of others" eval 'on alice nft list tables | grep others'
tap "it starts again" lab_daemon_start alice
tap "and bob is back" wait_for 20 answers alice "$BOB4"
tap "with the guard" silent mallory "$ALICE4"
tap_done
