#!/usr/bin/env bash
# Networks that let next to nothing through: the server is reached by TLS on port 443 where its
# own port is stopped, whether the firewall says so or swallows it.
cd "$(dirname "$0")" || exit 99
. ./tap.sh
. ./lab.sh
. ./nat_lab.sh
nat_lab_start tls443 || tap_bail "the lab"

way_is() {
    [ "$(on "$1" q2q-tun --json status | python3 -c 'import json,sys; print(json.load(sys.stdin)["self"]["server_way"])')" = "$2" ]
}

path_is() {
    [ "$(on "$1" q2q-tun --json status | python3 -c 'import json,sys; print((json.load(sys.stdin)["peers"][0]["path"] or {}).get("kind"))')" = "$2" ]
}

# From `up` to the first answer, in words.
first_answer() {
    local run
    run=$(on "$1" "$LAB_TOP/tests/netns/nat_measure.py" "$2@server.test" 1) || return
    echo "$run"
    python3 -c 'import json,sys; sys.exit(not json.loads(sys.argv[1])["ok"])' "$run"
}

nat_lab_side home easy || tap_bail easy
tap "where nothing is stopped, the usual port is used" way_is home ""
nat_lab_side walled only-443 || tap_bail only-443 # which registers, too
nat_lab_meet walled home || tap_bail "they do not meet"
nat_lab_renew walled home || tap_bail "the daemons"
tap "the server is reached by TLS on port 443" way_is walled "TLS on port 443"
tap "a tunnel to a home comes up and answers" first_answer walled home
tap "by the relay, over TLS" path_is walled relay-tcp
tap "status says so in words" says 'TLS on port 443' on walled q2q-tun status
tap "and doctor" says 'only TLS on port 443' on walled q2q-tun doctor

# A box that looks into the connection: what is no TLS gets nowhere, though it connects.
deaf() {
    on home-nat nft -f - <<'NFT'
table inet deaf {
    chain out {
        type filter hook forward priority -5;
        oifname "wan" tcp dport 8788 ct original packets > 3 drop;
    }
}
NFT
    nat_lab_end home && lab_daemon_start home && wait_for 60 nat_lab_connected home
}
on home-nat sysctl -qw net.netfilter.nf_conntrack_acct=1
tap "a firewall that lets connect, but nothing follow, is found out" deaf
tap "and gone around" way_is home "TLS on port 443"
tap "two walled networks: the relay" wait_for 60 path_is walled relay-tcp
tap "ping" wait_for 60 on walled ping -c 1 -W 2 home.server.test.q2q
# UDP is stopped in one network; a peer of it can be connected to.
nat_lab_side quiet no-udp || tap_bail no-udp
nat_lab_side open public || tap_bail public
nat_lab_meet quiet open || tap_bail "they do not meet"
nat_lab_renew quiet open || tap_bail "the daemons"
tap "no UDP, and a peer with a public address: a tunnel" first_answer quiet open
tap "directly, by TCP" wait_for 60 path_is quiet direct-tcp
tap "and the peer says the same" wait_for 60 path_is open direct-tcp
tap "doctor says why" says 'by TCP' on quiet q2q-tun doctor open@server.test
tap "pings pass" on quiet ping -c 20 -i 0.05 -W 2 open.server.test.q2q
stop_tcp() {
    on quiet-nat nft -f - <<'NFT' || return
table inet stop {
    chain fw {
        type filter hook forward priority -5;
        tcp sport 8788 accept;
        tcp dport 8788 accept;
        meta l4proto tcp drop;
    }
}
NFT
    wait_for 60 path_is quiet relay-tcp && on quiet ping -c 3 -i 0.2 -W 2 open.server.test.q2q
}
start_tcp() {
    on quiet-nat nft delete table inet stop && wait_for 40 path_is quiet direct-tcp
}
# Whoever knows nothing gets no byte, and does not stay.
stranger() {
    local port
    port=$(on open sh -c "ss -Hltnp | grep q2q-tund | sed -nE 's/.*:([0-9]+) .*/\\1/p' | head -n 1")
    on quiet /usr/bin/python3 - "$1" "$port" <<'PYTHON'
import socket, sys
s = [socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) for _ in range(8)]
for one in s:
    one.settimeout(30)
    try:
        one.send(b"\1" * 41)
    except OSError:
        pass
said = 0
for one in s:
    try:
        said += len(one.recv(100))
    except ConnectionError:
        pass
sys.exit(said)
PYTHON
}
tap "a stranger gets no answer, and is closed" stranger "$(on open sh -c "ip -4 -o addr show eth0 | sed -E 's,.* inet ([0-9.]+)/.*,\\1,'")"
tap "the connection is cut: the relay takes over" stop_tcp
tap "and TCP again, once it works" start_tcp
tap_done
