#!/usr/bin/env bash
# The traffic class byte, end to end: what datagrams carry outside (DSCP cleared or copied, ECN
# marks that are validated, bleached, or not let through), and what inner flows are told by CE.
. "$(dirname "${BASH_SOURCE[0]}")/tunnel_lab.sh"

tunnel_lab ecn

# In front of bob's router the network is slow, as it is at home.
WAN=$abs_top_builddir/tests/bench/wan
[ -x "$WAN" ] || tap_bail "tests/bench/wan is not built"
on core ip link del dev b
setpriv --pdeathsig KILL "$WAN" "/proc/${LAB_PID[core]}/ns/net" b "/proc/${LAB_PID[nat-b]}/ns/net" wan \
    rate=20mbit queue=60ms delay=10ms >"$LAB_DIR/wan.log" 2>&1 </dev/null &
LAB_OUTER+=("$!")
wait_for 30 grep -q ^ready "$LAB_DIR/wan.log" || tap_bail "the slow link"
on core ip addr add 203.0.113.1/24 dev b
on nat-b ip addr add 203.0.113.2/24 dev wan
on nat-b ip route add default via 203.0.113.1
tunnel_lab_register

# Alice copies DSCP, bob clears it, as is the default.
lab_end alice q2q-tund
on alice sh -c 'mkdir -p /etc/q2q-tun; printf "[network]\ndscp = copy\n" >/etc/q2q-tun/q2q-tun.conf'
lab_daemon_start alice --config /etc/q2q-tun/q2q-tun.conf || tap_bail "q2q-tund of alice, with a config"
tunnel_lab_up
on alice q2q-tun wait bob@server.test --direct --timeout 60 >/dev/null || tap_bail "a direct path"
BOB=$(status_of alice "['peers'][0]['ipv4']")
ALICE=$(status_of bob "['peers'][0]['ipv4']")

# What passes the core between the two NATs, counted; `mangle` is what happens to it before.
watch() {
    on core nft -f - <<NFT
table ip watch
delete table ip watch
table ip watch {
  chain mangle {
    type filter hook prerouting priority mangle;
    ip saddr 198.51.100.2 ip daddr 203.0.113.2 meta l4proto udp jump sent
    ip saddr 198.51.100.2 ip daddr 203.0.113.2 meta l4proto udp jump mangled
  }
  chain mangled {
    ${1:-}
  }
  chain sent {
    ip dscp ef counter comment "sent-ef"
    ip dscp 0 counter comment "sent-be"
    ip ecn ect0 counter comment "sent-ect0"
    ip ecn not-ect counter comment "sent-not-ect"
    ip ecn { ect1, ce } counter comment "sent-other"
  }
  chain back {
    type filter hook forward priority 0;
    ip saddr 203.0.113.2 ip daddr 198.51.100.2 meta l4proto udp jump answered
    ip saddr 198.51.100.2 ip daddr 203.0.113.2 meta l4proto udp ip ecn ce counter comment "passed-ce"
  }
  chain answered {
    ip dscp ef counter comment "back-ef"
    ip dscp 0 counter comment "back-be"
  }
}
NFT
}

# What comes out of the tunnel at HOST.
watch_inner() {
    on "$1" nft -f - <<'NFT'
table ip watch
delete table ip watch
table ip watch {
  chain in {
    type filter hook input priority 0;
    iifname "q2q-*" ip dscp ef counter comment "inner-ef"
    iifname "q2q-*" ip ecn ect0 counter comment "inner-ect0"
    iifname "q2q-*" ip ecn ce counter comment "inner-ce"
    iifname "q2q-*" counter comment "inner"
  }
}
NFT
}

# counted HOST NAME: packets so far
counted() {
    on "$1" nft -j list table ip watch | python3 -c '
import json, sys
for each in json.load(sys.stdin)["nftables"]:
    if each.get("rule", {}).get("comment") == sys.argv[1]:
        print(next(e["counter"]["packets"] for e in each["rule"]["expr"] if "counter" in e))' "$2"
}

# is_counted HOST NAME TEST NUMBER: as `test` has it
is_counted() {
    local n
    n=$(counted "$1" "$2")
    test "$n" "$3" "$4" || { echo "$2 at $1: $n, which is not $3 $4"; return 1; }
}

# flow HOST FROM ADDRESS BYTES SECONDS: a TCP connection that sends so much; prints what the sender's
# kernel says of it: ECN agreed (1 or 0), segments delivered with CE, segments sent again.
flow() {
    on bob python3 -c '
import socket
s = socket.create_server(("0.0.0.0", 7777))
c, _ = s.accept()
n = 0
while data := c.recv(1 << 16):
    n += len(data)
c.sendall(b"%d" % n)' >/dev/null 2>&1 &
    local receiver=$!
    wait_for 30 on bob sh -c 'ss -Hltn sport = :7777 | grep -q .'
    on alice timeout "$3" python3 -c '
import socket, struct, sys
address, n = sys.argv[1], int(sys.argv[2])
s = socket.create_connection((address, 7777))
s.sendall(bytes(n))
s.shutdown(socket.SHUT_WR)
got = int(s.recv(100))
info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
# struct tcp_info: tcpi_options is the sixth byte, TCPI_OPT_ECN is 8
print(int(bool(info[5] & 8)), struct.unpack_from("=I", info, 196)[0], struct.unpack_from("=I", info, 100)[0])
sys.exit(got != n)' "$1" "$2"
    local result=$?
    wait $receiver
    return $result
}

paths_use_ecn() {
    local said
    said=$(on alice q2q-tun --json status bob@server.test | python3 -c '
import json, sys
print(*[p["ecn"] for p in json.load(sys.stdin)["peers"][0]["paths"] if p["in_use"]])')
    [ "$said" = "$1" ] || { echo "in use with ECN: $said"; return 1; }
}

# ---- DSCP ----

watch || tap_bail "nft"
watch_inner bob || tap_bail "nft"
pings_with_ef() {
    on alice ping -q -c 20 -i 0.02 -W 2 -Q 0xb8 "$BOB"
}
tap "pings of the class EF" pings_with_ef
tap "arrive with it" is_counted bob inner-ef -ge 20
tap "and travel in datagrams that have it, where DSCP is copied" is_counted core sent-ef -ge 1
tap "their answers do not, where it is cleared" is_counted core back-ef -eq 0
tap "though there are answers" is_counted core back-be -ge 1

watch && watch_inner bob
pings_with_all_but_ecn() {
    on alice ping -q -c 20 -i 0.02 -W 2 -Q 0x03 "$BOB"
}
tap "pings with CE inside" pings_with_all_but_ecn
tap "arrive with CE" is_counted bob inner-ce -ge 20
tap "and travel in datagrams without, for inner ECN is never copied" is_counted core sent-other -eq 0
tap "which are ECT(0)" is_counted core sent-ect0 -ge 1

# ---- CE from our own queue ----

# signalled HOW...: packets that were marked, shortened or dropped for their flow to be told
signalled() {
    on alice q2q-tun --json status | python3 -c '
import json, sys
queue = json.load(sys.stdin)["peers"][0]["detail"]["queue"]
print(sum(queue[how] for how in sys.argv[1:]))' "$@"
}

# Slow start that nothing but loss or CE ends: other controllers may stop before there is a queue.
on alice sysctl -qw net.ipv4.tcp_ecn=1 net.ipv4.tcp_congestion_control=reno
watch_inner bob
read -r agreed ce _ <<<"$(flow "$BOB" 5000000 40)"
tap "a flow that agreed on ECN" [ "$agreed" = 1 ]
tap "is told of the queue by CE" is_counted bob inner-ce -ge 1
tap "and its sender heard of it" [ "${ce:-0}" -ge 1 ]
tap "no packet was lost to tell it so" [ "$(signalled shortened dropped)" = 0 ]
marked=$(signalled marked)
on alice sysctl -qw net.ipv4.tcp_ecn=0
read -r agreed _ again <<<"$(flow "$BOB" 5000000 40)"
tap "a flow without ECN" [ "$agreed" = 0 ]
tap "is not marked" [ "$(signalled marked)" = "$marked" ]
tap "but loses a packet now and then" [ "$(signalled shortened dropped)" -ge 1 ]
tap "and sends it again" [ "${again:-0}" -ge 1 ]

# ---- marks of the network ----

# Trains of datagrams count once here, and a busy machine makes long ones.
watch 'numgen inc mod 16 == 0 ip ecn ect0 ip ecn set ce' && watch_inner bob
on alice sysctl -qw net.ipv4.tcp_ecn=1
flow "$BOB" 2000000 40 >/dev/null
tap "marks that the network makes" is_counted core passed-ce -ge 10
tap "are validated" paths_use_ecn True
pings_with_ect0() {
    watch 'ip ecn set ce' && watch_inner bob &&
        on alice ping -q -c 20 -i 0.02 -W 2 -Q 0x02 "$BOB" && is_counted core passed-ce -ge 1
}
tap "pings with ECT(0) in datagrams that the network marks" pings_with_ect0
tap "arrive as they were" is_counted bob inner-ect0 -ge 20
tap "and not as marked" is_counted bob inner-ce -eq 0

watch 'ip ecn set ce'
all_marked() {
    flow "$BOB" 50000 60
}
tap "a network that marks everything is slow, but carries" all_marked

# ---- marks that are lost ----

watch 'ip ecn set not-ect' && watch_inner bob
flow "$BOB" 1000000 30 >/dev/null
tap "where the network clears the marks, they are given up" paths_use_ecn False
watch 'ip ecn set not-ect'
tap "and data goes on" flow "$BOB" 1000000 30
tap "without them" is_counted core sent-ect0 -eq 0
again_up() {
    on alice q2q-tun down bob@server.test && on alice q2q-tun up bob@server.test &&
        on alice q2q-tun wait bob@server.test --direct --timeout 60
}
watch 'ip ecn ect0 drop'
tap "where the network drops what is marked, a tunnel comes up" again_up
tap "and carries" flow "$BOB" 1000000 30
tap "without marks" paths_use_ecn False
tap_done
