# shellcheck shell=bash
# A bad link in the lab. Source this file from bash, as root; it brings lab.sh along.
#
#   wan_start NAME OPTION...       hosts alice (192.0.2.1) and bob (192.0.2.2), joined by the emulator
#   wan_join A ADDR/LEN B ADDR/LEN OPTION...     an emulated link between two hosts that are there
#   wan_counters [A]               what the emulator counted (of the link of host A), as JSON
#   wan_q2q [DAEMON-OPTION...]     q2q-tun between alice and bob; sets WAN_ADDRESS
#
# `tests/bench/wan --help` (in the build) lists the options of a link, such as
# rate=100mbit queue=50ms delay=25ms loss=1%. BUILD is the build's folder.

WAN_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
: "${BUILD:=${abs_top_builddir:-$WAN_TOP/build}}"
abs_top_builddir=$BUILD
. "$WAN_TOP/tests/netns/lab.sh"
declare -A WAN_PID

wan_address_of_link() {
    on "$1" cat /sys/class/net/eth0/address
}

# The two ends know each other's Ethernet address: a lost ARP packet would cost a second.
wan_neighbours() {
    local a=$1 b=$2 a_ip=${3%/*} b_ip=${4%/*}
    on "$a" ip neigh replace "$b_ip" lladdr "$(wan_address_of_link "$b")" dev eth0 nud permanent &&
        on "$b" ip neigh replace "$a_ip" lladdr "$(wan_address_of_link "$a")" dev eth0 nud permanent
}

wan_join() {
    local a=$1 a_addr=$2 b=$3 b_addr=$4 log=$LAB_DIR/wan-$1.log host
    shift 4
    setpriv --pdeathsig KILL "$BUILD/tests/bench/wan" "/proc/${LAB_PID[$a]}/ns/net" eth0 \
        "/proc/${LAB_PID[$b]}/ns/net" eth0 "$@" >"$log" 2>&1 </dev/null &
    WAN_PID[$a]=$!
    LAB_OUTER+=("${WAN_PID[$a]}")
    if ! wait_for 5 grep -q ^ready "$log"; then
        cat "$log" >&2
        return 1
    fi
    on "$a" ip addr add "$a_addr" dev eth0
    on "$b" ip addr add "$b_addr" dev eth0
    # The link's ends are taps, which q2q-tund takes for another tunnel's and leaves alone.
    for host in "$a" "$b"; do
        on "$host" sh -c 'mkdir -p /etc/q2q-tun && printf "[network]\nvirtual-interfaces = yes\n" >/etc/q2q-tun/q2q-tun.conf'
    done
    wan_neighbours "$a" "$b" "$a_addr" "$b_addr"
}

wan_start() {
    local name=$1
    shift
    lab_start "$name"
    lab_host alice bob || return
    wan_join alice 192.0.2.1/24 bob 192.0.2.2/24 "$@"
}

wan_counters() {
    local a=${1:-alice} before
    before=$(wc -l <"$LAB_DIR/wan-$a.log")
    kill -USR1 "${WAN_PID[$a]}" || return
    wait_for 2 eval "[ \$(wc -l <'$LAB_DIR/wan-$a.log') -gt $before ]"
    tail -n 1 "$LAB_DIR/wan-$a.log"
}

# What is installed of the build, made again only where something changed.
wan_install() {
    [ -n "${NO_BUILD:-}" ] || make -s -C "$BUILD" tests/netns/root.stamp >"$LAB_DIR/install.log" 2>&1 </dev/null ||
        { tail -n 20 "$LAB_DIR/install.log" >&2; return 1; }
    [ -x "$BUILD/tests/netns/root/usr/local/sbin/q2q-tund" ] ||
        { echo "nothing is installed in $BUILD/tests/netns/root" >&2; return 1; }
    lab_use_root "$BUILD/tests/netns/root"
}

# wan_server: the identity server has a cable to each host, so that it does not share the bad link.
wan_server() {
    lab_host server && wan_cable alice 1 && wan_cable bob 5 || return
    on server q2q-server --data-dir "$LAB_DATA" init server.test >/dev/null &&
        lab_server_start server 0.0.0.0:8788
}

# wan_cable HOST N: from the server, 198.51.100.N, to the host
wan_cable() {
    lab_link server "198.51.100.$2/30" "$1" "198.51.100.$(($2 + 1))/30" "$1" srv &&
        on "$1" sh -c "echo '198.51.100.$2 server.test' >>/etc/hosts"
}

# wan_pair_up A B [DAEMON-OPTION...]: sets PAIR_ADDRESS
wan_pair_up() {
    local a=$1 b=$2 host
    shift 2
    for host in "$a" "$b"; do
        lab_daemon_start "$host" "$@" && lab_register "$host" "$host@server.test" server >/dev/null || return
    done
    on "$b" q2q-tun allow "$a@server.test" --yes >/dev/null &&
        on "$a" q2q-tun up "$b@server.test" --yes --wait 30 >/dev/null &&
        on "$a" q2q-tun wait "$b@server.test" --direct --timeout 30 >/dev/null || return
    PAIR_ADDRESS=$(on "$a" q2q-tun --json status |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["peers"][0]["ipv4"])')
    [ -n "$PAIR_ADDRESS" ]
}

wan_q2q() {
    wan_install && wan_server && wan_pair_up alice bob "$@" && WAN_ADDRESS=$PAIR_ADDRESS
}

# wan_second_pair [DAEMON-OPTION...]: carol behind alice and dave behind bob, so that what they
# send shares the link; sets WAN_SECOND_ADDRESS
wan_second_pair() {
    lab_host carol dave || return
    lab_link alice 10.3.0.1/24 carol 10.3.0.2/24 lan eth0 && lab_link bob 10.4.0.1/24 dave 10.4.0.2/24 lan eth0 &&
        on carol ip route add default via 10.3.0.1 && on dave ip route add default via 10.4.0.1 &&
        on alice ip route add 10.4.0.0/24 via 192.0.2.2 && on bob ip route add 10.3.0.0/24 via 192.0.2.1 &&
        lab_forward alice && lab_forward bob && wan_cable carol 9 && wan_cable dave 13 &&
        wan_pair_up carol dave "$@" && WAN_SECOND_ADDRESS=$PAIR_ADDRESS
}
