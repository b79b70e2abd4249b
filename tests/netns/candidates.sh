#!/usr/bin/env bash
# Which addresses are told to the peer: those of networks, not those of other
# tunnels, of bridges for containers, and of interfaces that the user excludes.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab candidates

# Interfaces come before the daemon looks.
bob_interfaces() {
    on bob ip tuntap add vpn0 mode tun && on bob ip addr add 10.99.0.2/24 dev vpn0 && on bob ip link set vpn0 up &&
        on bob ip link add docker0 type bridge && on bob ip link add in0 type veth peer name in1 &&
        on bob ip link set in0 master docker0 && on bob ip addr add 172.17.0.1/16 dev docker0 &&
        on bob ip link set docker0 up && on bob ip link set in0 up && on bob ip link set in1 up &&
        on bob ip link add odd7 type veth peer name odd8 && on bob ip addr add 172.30.0.1/16 dev odd7 &&
        on bob ip link set odd7 up && on bob ip link set odd8 up
}

listens() {
    grep -q "$1@server.test .* listens" "$LAB_DIR/server-q2q-server.log"
}

# told HOST PEER: the addresses that HOST tells the peer
told() {
    on "$1" q2q-tun --json status "$2" | python3 -c '
import json, sys
s = json.load(sys.stdin)
for c in (s if "local" in s else s["peers"][0])["local"]:
    print(c["address"].rsplit(":", 1)[0])'
}

# are ADDRESS... [not ADDRESS...]: is bob's list so?
are() {
    local each list want=0
    list=$(told bob alice@server.test) || return
    echo "$list"
    for each in "$@"; do
        [ "$each" = not ] && { want=1; continue; }
        grep -qxF "$each" <<<"$list"
        [ $? -eq $want ] || { echo "$each"; return 1; }
    done
}

restart_bob() {
    lab_end bob q2q-tund && on bob sh -c 'mkdir -p /etc/q2q-tun; cat >/etc/q2q-tun/q2q-tun.conf' &&
        lab_daemon_start bob --config /etc/q2q-tun/q2q-tun.conf && on bob q2q-tun up alice@server.test --yes
}

tap "other interfaces" bob_interfaces
tunnel_lab_register
wait_for 30 listens bob
tunnel_lab_up
tap "addresses of networks are told, others are not" are 10.2.0.2 172.30.0.1 not 10.99.0.2 172.17.0.1
tap "an interface can be excluded, and virtual ones used" restart_bob <<E2
[network]
exclude-interface = odd*
virtual-interfaces = yes
E2
tap "and it is so" are 10.2.0.2 10.99.0.2 172.17.0.1 not 172.30.0.1
tap "all networks can be excluded" restart_bob <<E2
[network]
exclude-interface = odd*
exclude-interface = eth*
E2
tap "then virtual ones are better than nothing" are 10.99.0.2 172.17.0.1 not 10.2.0.2 172.30.0.1
tap_done
