# shellcheck shell=bash
# The tunnels that are measured, each between two hosts of its own. Source it after lab.sh.
# tunnel_NAME A B: brings it up between two hosts that reach one another as 192.0.2.1 and
# 192.0.2.2, and sets TUNNEL_ADDRESS, where A reaches B through it.

# bench_tune HOST...: what makes rounds independent of one another
bench_tune() {
    local host
    for host in "$@"; do
        on "$host" sysctl -qw net.ipv4.tcp_no_metrics_save=1
        # The limit of ICMP answers is for attacks, not for a ping every few milliseconds.
        on "$host" sysctl -qw net.ipv4.icmp_ratelimit=0 2>/dev/null
    done
}

iperf_server() {
    spawn "$1" "$1-iperf3.log" iperf3 -s
    wait_for 5 on "$1" sh -c 'ss -Hltn sport = :5201 | grep -q .'
}

# WIREGUARD_GO=/path measures another one than the system's.
tunnel_wireguard_go() {
    local a=$1 b=$2 host
    for host in "$a" "$b"; do
        on "$host" mkdir -p /run/wireguard
        spawn "$host" "$host-wireguard.log" env WG_PROCESS_FOREGROUND=1 "${WIREGUARD_GO:-wireguard-go}" -f wg0
        on "$host" sh -c 'umask 077; wg genkey >/root/wg.key; wg pubkey </root/wg.key >/root/wg.pub'
    done
    wait_for 5 on "$a" ip link show wg0 && wait_for 5 on "$b" ip link show wg0 || return
    on "$a" wg set wg0 private-key /root/wg.key listen-port 51820 \
        peer "$(on "$b" cat /root/wg.pub)" allowed-ips 10.9.0.2/32 endpoint 192.0.2.2:51820
    on "$b" wg set wg0 private-key /root/wg.key listen-port 51820 \
        peer "$(on "$a" cat /root/wg.pub)" allowed-ips 10.9.0.1/32 endpoint 192.0.2.1:51820
    tunnel_address "$a" "$b" wg0 && on "$a" ip link set dev wg0 up mtu 1420 && on "$b" ip link set dev wg0 up mtu 1420
}

# tunnel_address A B INTERFACE: 10.9.0.1 at A and 10.9.0.2 at B
tunnel_address() {
    on "$1" ip addr add 10.9.0.1/24 dev "$3" && on "$2" ip addr add 10.9.0.2/24 dev "$3" &&
        TUNNEL_ADDRESS=10.9.0.2
}
