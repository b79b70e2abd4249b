# shellcheck shell=bash
# A bad link in the lab. Source this file from bash, as root; it brings lab.sh along.
#
#   wan_start NAME OPTION...       hosts alice (192.0.2.1) and bob (192.0.2.2), joined by the emulator
#   wan_join A ADDR/LEN B ADDR/LEN OPTION...     an emulated link between two hosts that are there
#   wan_counters [A]               what the emulator counted (of the link of host A), as JSON
#   wan_q2q                        q2q-tun between alice and bob; sets WAN_ADDRESS
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
    local a=$1 a_addr=$2 b=$3 b_addr=$4 log=$LAB_DIR/wan-$1.log
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

# wan_q2q [DAEMON-OPTION...]: the identity server has a cable of its own, so that it does not
# share the bad link; the tunnel has only that.
wan_q2q() {
    local host
    wan_install && lab_host server || return
    lab_link server 198.51.100.1/30 alice 198.51.100.2/30 a srv
    lab_link server 198.51.100.5/30 bob 198.51.100.6/30 b srv
    on alice sh -c 'echo "198.51.100.1 server.test" >>/etc/hosts'
    on bob sh -c 'echo "198.51.100.5 server.test" >>/etc/hosts'
    on server q2q-server --data-dir "$LAB_DATA" init server.test >/dev/null &&
        lab_server_start server 0.0.0.0:8788 || return
    for host in alice bob; do
        lab_daemon_start $host "$@" && lab_register $host $host@server.test server >/dev/null || return
    done
    on bob q2q-tun allow alice@server.test --yes >/dev/null &&
        on alice q2q-tun up bob@server.test --yes --wait 30 >/dev/null &&
        on alice q2q-tun wait bob@server.test --direct --timeout 30 >/dev/null || return
    WAN_ADDRESS=$(on alice q2q-tun --json status |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["peers"][0]["ipv4"])')
    [ -n "$WAN_ADDRESS" ]
}
