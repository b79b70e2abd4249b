#!/usr/bin/env bash
# Certificates that end within seconds: they are renewed in time, and tunnels with all that flows in
# them stay; where the server does not renew them, it is said, and the tunnel ends with them.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab renew easy easy
LIFETIME=20
CONFIG=/etc/q2q-tun/q2q-server.conf

server_configured() { # LINES: stops the server and starts it with these
    lab_end server q2q-server || return
    on server sh -c "mkdir -p /etc/q2q-tun && printf '$1' >$CONFIG"
    lab_server_start server 192.0.2.10:8788 --config $CONFIG
}
log_of() {
    echo "$LAB_DIR/$1-q2q-tund.log"
}
renewals_of() {
    grep -c 'its certificate was renewed' "$(log_of "$1")"
}
renewed_times() { # HOST N
    [ "$(renewals_of "$1")" -ge "$2" ]
}

server_configured "[server]\ncertificate-lifetime = ${LIFETIME}s\n" || tap_bail "q2q-server with a configuration"
tunnel_lab_register
tunnel_lab_up
tap "the tunnel is up, directly" wait_for 20 path_kind_is alice direct-udp
interfaces() {
    on alice sh -c 'cat /sys/class/net/q2q-*/ifindex'
    on bob sh -c 'cat /sys/class/net/q2q-*/ifindex'
}
before=$(interfaces)
fingerprint() {
    on alice q2q-tun --json identity show | python3 -c 'import json,sys; print(json.load(sys.stdin)["fingerprint"])'
}
key_before=$(fingerprint)
spawn alice ping.log ping -i 0.1 -W 5 "$(status_of alice "['peers'][0]['ipv4']")"
ping_pid=$SPAWNED_PID
started=$SECONDS

tap "alice's certificate is renewed" wait_for $((LIFETIME * 2)) renewed_times alice 1
tap "bob's too" wait_for $((LIFETIME * 2)) renewed_times bob 1
tap "and again, when the first would have ended" wait_for $((LIFETIME * 3)) renewed_times alice 2
tap "bob's too" wait_for $((LIFETIME * 3)) renewed_times bob 2
two_lifetimes_on() {
    [ $((SECONDS - started)) -ge $((LIFETIME + 5)) ]
}
wait_for $((LIFETIME * 3)) two_lifetimes_on
tap "the tunnel is up, past the end of the certificates that it began with" peer_state_is alice up
tap "its key is the same" eval '[ "$(fingerprint)" = "$key_before" ]'
tap "the tunnel was never down" eval '[ "$(interfaces)" = "$before" ] && ! grep "not up any more" "$(log_of alice)" "$(log_of bob)"'
on alice pkill -INT -x ping
wait $ping_pid 2>/dev/null
tap "and packets passed" packets_passed
tap "the server has it in its list" says "renewed the certificate of alice@server.test" cat "$LAB_DIR/server-q2q-server.log"

# By the relay alone: a new way through the server with each renewal, the same tunnel.
on alice q2q-tun up bob@server.test --path relay >/dev/null || tap_bail "up by the relay"
by_relay() {
    path_kind_is alice relay-udp || path_kind_is alice relay-tcp
}
tap "by the relay" wait_for 20 by_relay
n=$(renewals_of alice)
tap "renewed there as well" wait_for $((LIFETIME * 2)) renewed_times alice $((n + 1))
answers() {
    on alice ping -c 1 -W 5 "$(status_of alice "['peers'][0]['ipv4']")"
}
tap "packets pass soon" wait_for 30 answers
tap "in the same tunnel" eval '[ "$(interfaces)" = "$before" ]'

# A daemon that starts late in a certificate's life asks at once; one that starts too late says so.
server_configured '[server]\ncertificate-renewal = no\n' || tap_bail "q2q-server without renewal"
warned() {
    grep -q 'ends on .* does not renew it .*run q2q-tun authorize alice@server.test' "$(log_of alice)"
}
tap "where it is not renewed, the user is told, once" wait_for $((LIFETIME * 2)) warned
tap "doctor says it" says 'does not renew it' on alice q2q-tun doctor
not_up() {
    ! peer_state_is alice up && ! peer_state_is bob up
}
tap "with the certificate the tunnel ends" wait_for $((LIFETIME * 2)) not_up
tap "which is said" wait_for 30 grep -q 'the link is ended: .*expired' "$(log_of alice)" "$(log_of bob)"
tap "the server lets nobody in with it" wait_for 30 grep -q 'does not accept the certificate of alice' "$(log_of alice)"
tap "and it was told once" eval '[ "$(grep -c "does not renew it" "$(log_of alice)")" = 1 ]'
for host in alice bob; do
    tap "$host signs in with the password" on $host q2q-tun authorize $host@server.test --password-file /root/password
done
on alice q2q-tun up bob@server.test --path auto >/dev/null
tap "and the tunnel is back" wait_for 60 peer_state_is alice up
tap_done
