#!/usr/bin/env bash
# A laptop moves: other addresses, other networks, sleep, a NAT that starts anew.
# An ssh and an scp over the tunnel go on each time; the longest silence is printed.
# ROAM_FREEZE_S is how long the machine sleeps. ROAM_NAT64=yes adds a move to a network
# of IPv6 alone, with NAT64 and DNS64 (package tayga).
cd "$(dirname "$0")" || exit 99
HERE=$PWD
. ./tap.sh
. ./lab.sh
. ./nat_lab.sh
FREEZE_S=${ROAM_FREEZE_S:-12} # longer than a peer's silence means that it has gone
nat_lab_start roam || tap_bail "the lab"
nat_lab_side bob easy || tap_bail "bob"
# The NAT forgets a silent flow while alice sleeps.
nat_lab_side alice timeout=10 || tap_bail "alice"
PEER=bob.server.test.q2q

# Two more networks that alice can be in, by interfaces of their own.
other_network() {
    local router=$1 interface=$2 kind=$3
    nat_lab_router "$router" && lab_link "$router" 192.168.7.1/24 alice 192.168.7.2/24 lan "$interface" &&
        lab_nat "$router" "$kind" && on alice ip link set "$interface" down
}
other_network cafe eth1 easy || tap_bail "the other network"
if [ -n "${ROAM_NAT64:-}" ]; then
    nat_lab_router six && lab_link six 192.168.8.1/24 alice 192.168.8.2/24 lan eth2 &&
        on alice ip addr flush dev eth2 && on six ip addr add 2001:db8:66::1/64 dev lan &&
        on core ip -6 route add 2001:db8:66::/64 via "2001:db8:ff:$NAT_LAB_UPLINK::2" &&
        lab_nat six easy && nat_lab_translate six && on alice ip link set eth2 down || tap_bail "NAT64"
fi

nat_lab_meet alice bob && nat_lab_renew alice bob || tap_bail "they do not meet"
on alice q2q-tun up bob@server.test --yes >/dev/null || tap_bail "up"
lab_sshd bob alice || tap_bail "sshd"
on alice sh -c 'head -c 3000000 /dev/urandom >/root/file'
BOB=$(on alice getent ahostsv4 $PEER | awk '{ print $1; exit }')

# One ssh for the whole time: what it is given comes back.
coproc SSH { on alice ssh "${LAB_SSH_OPTIONS[@]}" -o ServerAliveInterval=0 $PEER cat; }
SSH_IN=${SSH[1]} SSH_OUT=${SSH[0]} TOKEN=0
ssh_answers() {
    local answer
    TOKEN=$((TOKEN + 1))
    echo "token $TOKEN" >&"$SSH_IN"
    while read -r -t "$1" answer <&"$SSH_OUT"; do
        [ "$answer" = "token $TOKEN" ] && return 0
    done
    return 1
}

# moves SECONDS ACTION...: traffic before, during and after it; packets flow again within SECONDS.
moves() {
    local within=$1 gap copy start result=0
    shift
    on alice timeout 180 scp -q -l 8000 "${LAB_SSH_OPTIONS[@]}" /root/file $PEER:/root/file \
        </dev/null >"$LAB_DIR/scp.log" 2>&1 &
    copy=$!
    mkfifo "$LAB_DIR/stop"
    on alice "$HERE/roam_gap.py" "$BOB" <"$LAB_DIR/stop" >"$LAB_DIR/gap" 2>&1 &
    gap=$!
    exec {STOP}>"$LAB_DIR/stop"
    rm "$LAB_DIR/stop"
    sleep 1
    start=$SECONDS
    "$@" || { echo "the move itself failed"; result=1; }
    wait_for "$within" on alice ping -c 1 -W 1 "$BOB" || { echo "no packet for $within s"; result=1; }
    echo "packets again after $((SECONDS - start)) s"
    sleep 1
    exec {STOP}>&-
    wait $gap
    ssh_answers 60 || { echo "the ssh is dead"; result=1; }
    wait $copy || { echo "scp failed"; cat "$LAB_DIR/scp.log"; result=1; }
    [ "$(on alice sha256sum /root/file)" = "$(on bob sha256sum /root/file)" ] || return
    return $result
}

# roams DESCRIPTION SECONDS ACTION...
roams() {
    local description=$1
    shift
    tap "$description: ssh and scp go on" moves "$@"
    echo "# $description: $(cat "$LAB_DIR/gap")"
}
direct_again() {
    tap "and the path is direct again" on alice q2q-tun wait bob@server.test --direct --timeout 60
}

new_address() {
    # In this order: one that is added to another of its network goes with that.
    on alice ip addr del 192.168.1.2/24 dev eth0 && on alice ip addr add 192.168.1.77/24 dev eth0 &&
        on alice ip route replace default via 192.168.1.1
}
second_network() {
    on alice ip link set eth1 up && on alice ip addr replace 192.168.7.2/24 dev eth1 &&
        on alice ip route replace default via 192.168.7.1 dev eth1
}
leave_second() {
    on alice ip link set eth1 down && on alice ip route replace default via 192.168.1.1 dev eth0
}
change_wifi() {
    on alice ip link set eth0 down
    sleep 0.3
    on alice ip link set eth1 up && on alice ip addr replace 192.168.7.2/24 dev eth1 &&
        on alice ip route replace default via 192.168.7.1 dev eth1
}
nat_reboots() {
    local n
    n=$(on cafe ip -4 -o addr show dev wan | sed -E 's/.*198\.18\.([0-9]+)\.2.*/\1/')
    on cafe ip link set wan down
    lab_forget_flows cafe
    sleep 0.5
    on cafe ip addr flush dev wan
    on cafe ip addr add "198.18.$n.3/24" dev wan
    on cafe ip link set wan up
    on cafe ip route replace default via "198.18.$n.1"
}
sleeps() {
    # As sleep does: nothing on the machine runs; time goes on.
    on alice sh -c 'kill -STOP $(pgrep -x "q2q-tund|ssh|scp|python3")'
    sleep "$FREEZE_S"
    on alice sh -c 'kill -CONT $(pgrep -x "q2q-tund|ssh|scp|python3")'
    # nsenter stops with what it runs, and would wait for ever.
    pkill -CONT -f "^nsenter -t ${LAB_PID[alice]} "
}
to_ipv6_only() {
    on alice ip link set eth0 down && on alice ip link set eth1 down && on alice ip link set eth2 up &&
        on alice ip addr replace 2001:db8:66::2/64 dev eth2 &&
        on alice ip -6 route replace default via 2001:db8:66::1 && nat_lab_resolver alice 2001:db8:66::1
}

tap "a direct path" on alice q2q-tun wait bob@server.test --direct --timeout 60
tap "an ssh" ssh_answers 60
roams "a new address" 40 new_address
direct_again
roams "a second network, and the default route there" 40 second_network
direct_again
roams "back to the first" 40 leave_second
direct_again
roams "another network instead of this one" 40 change_wifi
direct_again
roams "the NAT starts anew with another public address" 40 nat_reboots
direct_again
roams "$FREEZE_S s of sleep" $((FREEZE_S + 40)) sleeps
direct_again
if [ -n "${ROAM_NAT64:-}" ]; then
    roams "from IPv4 alone to IPv6 alone with NAT64" 40 to_ipv6_only
fi
tap_done
