#!/usr/bin/env bash
# Machines that are not as they should be: many peers at start, a full disk, damaged files, a server
# or a name server that is away at boot, addresses that are in use, two daemons on one state.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab hardship
tunnel_lab_register
tunnel_lab_up
STATE=/var/lib/q2q-tun

restart_daemon() {
    lab_daemon_end "$1" && lab_daemon_start "$1"
}
both_up() {
    peer_state_is bob up && [ "$(alice_sees "['state']")" = up ]
}
# alice_sees JSON-PATH: of bob, among however many
alice_sees() {
    on alice q2q-tun --json status bob@server.test | python3 -c "import json,sys; print(json.load(sys.stdin)['peers'][0]$1)"
}
connected() {
    [ "$(status_of "$1" "['self']['connected']")" = True ]
}

# ---- many peers

lab_daemon_end alice
on alice sh -c "cd $STATE/known-peers && for i in \$(seq 400); do
    echo '{\"allowed\":true,\"wanted\":true}' >nobody\$i@server.test.json; done; chown q2q-tun: *; chmod 600 *"
tap "a daemon with 400 wanted peers starts" lab_daemon_start alice
tap "and makes all interfaces" wait_for 40 eval '[ "$(on alice ip -br link | grep -c ^q2q-)" = 401 ]'
tap "with names of their own" eval '[ "$(on alice ip -br link | grep ^q2q- | sort -u | wc -l)" = 401 ]'
tap "the one that is there is up" wait_for 20 both_up
server_is_away_for() {
    lab_end server q2q-server KILL
    sleep "$1"
    lab_server_start server 192.0.2.10:8788
}
# What 400 sessions ask meets a connection in each state in which it can be.
many_absences() {
    for pause in 0 0.3 1 2.5 0 0.7; do
        server_is_away_for $pause || return
        wait_for 40 connected alice || return
    done
}
tap "the server goes and comes while all of them ask" many_absences
tap "the daemon is still there" eval '[ "$(on alice pgrep -cx q2q-tund -r R,S,D)" = 2 ]'
tap "and so is the tunnel" wait_for 30 both_up
lab_daemon_end alice
on alice sh -c "rm $STATE/known-peers/nobody*"
lab_daemon_start alice

# ---- one daemon for one state

tap "a second daemon does not share the state" says 'another q2q-tund' \
    on alice timeout 20 q2q-tund --foreground --control /run/second/control --names-socket /run/second/names
tap "and the first one goes on" wait_for 20 both_up

# ---- a full disk

fill() {
    on "$1" sh -c "mount -t tmpfs -o size=64k,mode=0700,uid=64188,gid=64188 tmpfs /mnt && cp -a $STATE/. /mnt/ && \
        mount --move /mnt $STATE && { head -c 1000000 /dev/zero >$STATE/ballast 2>/dev/null; test -s $STATE/ballast; }"
}
lab_daemon_end bob
tap "bob's disk is full" fill bob
tap "he starts all the same" lab_daemon_start bob
tap "and his tunnel comes up" wait_for 20 both_up
tap "what cannot be stored is an error" exits_with 1 on bob q2q-tun allow carol@server.test --yes
tap "which says why" says 'No space left' on bob q2q-tun allow carol@server.test --yes
tap "and nobody is allowed by it" eval '! on bob q2q-tun peers | grep carol@server.test'
tap "taking back a permission is not lost in silence" exits_with 1 on bob q2q-tun deny alice@server.test
not_up() {
    [ "$(alice_sees "['state']")" != up ]
}
tap "though it holds at once" wait_for 12 not_up
lab_daemon_end bob
on bob umount $STATE
lab_daemon_start bob
tap "with the old disk back, the tunnel is" wait_for 60 both_up

# ---- damaged files

lab_daemon_end alice
on alice sh -c "echo '{\"allowed\":true,\"wanted\":true,\"spki\":\"00\"}' >$STATE/known-peers/bob@server.test.json"
lab_daemon_start alice
tap "a pin that cannot be read is no reason to trust anew" exits_with 7 on alice q2q-tun up bob@server.test --yes
tap "the message names the file" says 'known-peers/bob@server.test.json' on alice q2q-tun up bob@server.test --yes
tap "bob's side does not get in either" eval '! on bob q2q-tun up alice@server.test --wait 3'
on alice q2q-tun peers forget bob@server.test
tap "forgotten on purpose, he is new" on alice q2q-tun up bob@server.test --yes --wait 20
on alice sh -c "echo garbage >$STATE/requests.json"
restart_daemon alice
tap "a damaged list of requests is reported" grep -q 'requests.json' "$LAB_DIR/alice-q2q-tund.log"
tap "and the rest works" wait_for 30 both_up

# ---- nothing works at boot

lab_end server q2q-server KILL
on alice ip link set eth0 down
lab_end core dnsmasq
lab_daemon_end alice
lab_daemon_end bob
tap "alice starts without network, name server or server" lab_daemon_start alice
tap "bob without name server or server" lab_daemon_start bob
sleep 5
on alice ip link set eth0 up
on alice ip route replace default via 10.1.0.1
lab_dns core 192.0.2.1 --host-record=server.test,192.0.2.10 --srv-host=_q2q._tcp.server.test,server.test,8788
lab_server_start server 192.0.2.10:8788
start=$SECONDS
tap "when all of it is back, so is the tunnel" wait_for 60 both_up
echo "# it took $((SECONDS - start)) s"

# ---- addresses and names

lab_daemon_end alice
ip4=$(python3 - <<'PY'
import hashlib
h = hashlib.sha256(b"q2q-tun vip4 v1\0bob@server.test").digest()
print("100.%d.%d.%d" % (64 | h[0] & 63, h[1], h[2]))
PY
)
on alice ip tuntap add dev vpn mode tun
on alice ip link set vpn up
on alice ip route add "${ip4%.*}.0/24" dev vpn
lab_daemon_start alice
tap "an address that another network uses is given up" wait_for 30 both_up
tap "bob is shown with another one" eval '[ "$(alice_sees "[\"ipv4\"]")" != "$ip4" ]'
tap "by which he is reached" on alice ping -c 2 -i 0.2 -W 2 "$(alice_sees "['ipv4']")"
tap "and he sees alice" on bob ping -c 2 -i 0.2 -W 2 alice.server.test.q2q
on alice ip link del vpn

# ---- only IPv6

on alice ip addr add 2001:db8:1::2/64 dev eth0
on nat-a ip addr add 2001:db8:1::1/64 dev lan
on nat-a ip addr add 2001:db8:a::2/64 dev wan
on core ip addr add 2001:db8:a::1/64 dev a
on core ip addr add 2001:db8:5::1/64 dev srv
on server ip addr add 2001:db8:5::10/64 dev eth0
on alice ip -6 route add default via 2001:db8:1::1
on nat-a ip -6 route add default via 2001:db8:a::1
on core ip -6 route add 2001:db8:1::/64 via 2001:db8:a::2
on server ip -6 route add default via 2001:db8:5::1
lab_end core dnsmasq
spawn core dnsmasq6.log dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
    --listen-address=192.0.2.1,2001:db8:a::1 --bind-interfaces --pid-file= --user=root --local=/test/ \
    --host-record=server.test,192.0.2.10,2001:db8:5::10 --srv-host=_q2q._tcp.server.test,server.test,8788
lab_end server q2q-server
lab_server_start server '[::]:8788'
lab_daemon_end alice
on alice ip -4 addr flush dev eth0
on alice sh -c 'echo nameserver 2001:db8:a::1 >/etc/resolv.conf'
lab_daemon_start alice
tap "a machine with IPv6 alone finds its server" wait_for 30 connected alice
tap "and by it a peer with IPv4 alone" wait_for 40 both_up
tap "whom it reaches" on alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q
tap_done
