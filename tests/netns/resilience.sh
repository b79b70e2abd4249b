#!/usr/bin/env bash
# What a tunnel survives: a new mapping of the NAT in the middle of a copy, a
# server that goes and comes back, a peer that is killed, kill -9 of each process.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab resilience
tunnel_lab_register
tunnel_lab_up
lab_sshd bob alice || tap_bail "sshd"
tap "a direct path" on alice q2q-tun wait bob@server.test --direct --timeout 60

# New public ports for everything that alice's NAT has mapped.
rebind_nat() {
    on nat-a nft flush chain ip n post
    on nat-a nft add rule ip n post oifname wan meta l4proto udp masquerade to :"$1"
    on nat-a nft add rule ip n post oifname wan masquerade
    # Taking the address away and back makes the kernel forget masqueraded mappings.
    on nat-a ip addr del 198.51.100.2/24 dev wan
    on nat-a ip addr add 198.51.100.2/24 dev wan
    on nat-a ip route replace default via 198.51.100.1
}

copy_with_rebinding() {
    local copy
    on alice sh -c 'head -c 100000000 /dev/urandom >/root/file'
    on alice scp -q -l 200000 "${LAB_SSH_OPTIONS[@]}" /root/file bob.server.test.q2q:/root/file &
    copy=$!
    wait_for 30 on bob test -s /root/file || { echo "scp does not start"; return 1; }
    rebind_nat 20000-20999
    wait $copy || { echo "scp failed"; return 1; }
    [ "$(on alice sha256sum /root/file)" = "$(on bob sha256sum /root/file)" ]
}
tap "an scp goes on when alice's NAT takes other ports" copy_with_rebinding
tap "and the path is direct again" on alice q2q-tun wait bob@server.test --direct --timeout 60

moved() {
    on alice ss -Htn state established dst 192.0.2.10:8788 src 10.1.0.77 | grep -q .
}
on alice ip addr del 10.1.0.2/24 dev eth0
on alice ip addr add 10.1.0.77/24 dev eth0
on alice ip route replace default via 10.1.0.1
start=$SECONDS
tap "alice moves to another address, and her connection to the server with her" wait_for 20 moved
echo "# it took $((SECONDS - start)) s"
tap "packets go again within 6 s" wait_for 6 on alice ping -c 1 -W 1 bob.server.test.q2q
tap "and the path becomes direct" on alice q2q-tun wait bob@server.test --direct --timeout 60

tap "the server is killed" lab_end server q2q-server KILL
tap "the tunnel stays" on alice ping -c 3 -i 0.2 -W 2 bob.server.test.q2q
tap "the server is started again" lab_server_start server 192.0.2.10:8788
connected() {
    [ "$(status_of "$1" "['self']['connected']")" = True ]
}
tap "alice is online again" wait_for 40 connected alice
tap "bob is online again" wait_for 40 connected bob
tap "the tunnel is still up" on alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q

kill_daemons() {
    on bob sh -c 'kill -9 $(pgrep -x q2q-tund)' && wait_for 30 eval '! on bob pgrep -x q2q-tund'
}
tap "both processes of bob's daemon are killed" kill_daemons
bob_is_not_up() {
    ! peer_state_is alice up
}
start=$SECONDS
tap "alice's status says so within 20 s" wait_for 20 bob_is_not_up
echo "# it took $((SECONDS - start)) s"
tap "bob has no interface left" eval '! on bob ip -br link | grep ^q2q-'
tap "bob starts again" lab_daemon_start bob
start=$SECONDS
tap "the tunnel returns by itself" wait_for 60 peer_state_is alice up
echo "# it took $((SECONDS - start)) s"
tap "and carries packets" on alice ping -c 3 -i 0.2 -W 2 bob.server.test.q2q

one_process_takes_the_other() {
    # The oldest q2q-tund is the monitor, the newest the daemon.
    on bob sh -c "kill -9 \$(pgrep -x $1 q2q-tund)"
    wait_for 30 eval '! on bob ip -br link | grep ^q2q-' && wait_for 30 eval '! on bob pgrep -x q2q-tund'
}
tap "kill -9 of the monitor leaves nothing" one_process_takes_the_other -o
tap "bob starts again" lab_daemon_start bob
tap "with his peers" says 'alice@server.test' on bob q2q-tun peers
tap "the tunnel returns" wait_for 60 eval 'peer_state_is bob up && peer_state_is alice up'
tap "kill -9 of the daemon leaves nothing" one_process_takes_the_other -n
tap "bob starts again" lab_daemon_start bob
tap "and his identity is there" says 'bob@server.test' on bob q2q-tun identity

# The server hears nothing of it, not even the goodbye of bob's kernel: the old connection is a
# listener for a while.
vanish_and_return() {
    local port
    on bob q2q-tun down alice@server.test && on alice q2q-tun down bob@server.test || return
    port=$(on bob ss -Htn dst 192.0.2.10:8788 | awk '{ sub(/.*:/, "", $4); print $4; exit }')
    [ -n "$port" ] && on bob nft -f - <<NFT || return
table inet silence {
    chain out { type filter hook output priority 0; tcp sport $port drop; }
}
NFT
    on bob pkill -KILL -x q2q-tund && wait_for 30 eval '! on bob pgrep -x q2q-tund' || return
    lab_daemon_start bob && wait_for 20 connected bob && on bob q2q-tun allow alice@server.test --yes
}
tap "bob's machine vanishes without a word, and is back" vanish_and_return
tap "a tunnel to it does not wait for the silence to be noticed" on alice q2q-tun up bob@server.test --wait 10

tap "SIGTERM ends alice's daemon" on alice sh -c 'kill -TERM $(pgrep -o -x q2q-tund)'
tap "cleanly" wait_for 30 eval '! on alice pgrep -x q2q-tund -r R,S,D'
tap_done
