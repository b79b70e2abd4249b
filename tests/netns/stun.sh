#!/usr/bin/env bash
# STUN servers of others: coturn at a second address shows a NAT that maps by address;
# one that is silent, and one that lies, change nothing.
. "$(dirname "$0")/tunnel_lab.sh"
command -v turnserver >/dev/null || tap_skip_all "turnserver is missing (package coturn)"
tunnel_lab stun hard-address easy
lab_host foreign
lab_link core 192.0.3.1/24 foreign 192.0.3.20/24 foreign eth0 || tap_bail "the foreign server's network"
on foreign ip addr add 192.0.3.21/24 dev eth0
on foreign ip route add default via 192.0.3.1
on alice sh -c 'echo "192.0.3.20 stun.example" >>/etc/hosts'
tunnel_lab_register
wait_for 30 grep -q 'bob@server.test .* listens' "$LAB_DIR/server-q2q-server.log"

foreign_servers() {
    spawn foreign coturn.log turnserver -n --listening-ip=192.0.3.20 --stun-only --no-cli --no-tls --no-dtls \
        --log-file=stdout --pidfile=/run/turnserver.pid
    # Private, loopback, nobody, everybody, and a port where none is.
    spawn foreign liar.log "$LAB_TOP/tests/netns/stun_liar.py" 192.0.3.21 3478 10.9.8.7:40000 127.0.0.1:40001 \
        0.0.0.0:40002 224.0.0.1:40003 255.255.255.255:40004 169.254.1.1:40005 192.168.1.1:0
    wait_for 30 on foreign sh -c 'ss -Hlun sport = :3478 | grep -q 192.0.3.20' &&
        wait_for 30 grep -q ready "$LAB_DIR/liar.log"
}

# alice_starts LINE...: with these lines of [network]
alice_starts() {
    on alice pgrep -x q2q-tund >/dev/null && lab_end alice q2q-tund
    on alice mkdir -p /etc/q2q-tun
    printf '%s\n' '[network]' 'port-mapping = off' "$@" | on alice sh -c 'cat >/etc/q2q-tun/q2q-tun.conf'
    lab_daemon_start alice && on alice q2q-tun up bob@server.test --yes >/dev/null
}

alices_nat_is() {
    [ "$(status_of alice "['peers'][0]['detail']['nat_local']")" = "$1" ]
}

is_direct() {
    path_kind_is alice direct-udp
}

# No address that a liar named is told to the peer, or shown as ours.
no_lie() {
    local said
    said=$(on alice q2q-tun --json status bob@server.test && on alice q2q-tun --json doctor)
    ! grep -oE '"(10\.9\.8\.7|127\.0\.0\.1|0\.0\.0\.0|224\.0\.0\.1|255\.255\.255\.255|169\.254\.1\.1|192\.168\.1\.1):[0-9]+"' <<<"$said"
}

tap "coturn, and a server that lies" foreign_servers
on bob q2q-tun allow alice@server.test --yes >/dev/null || tap_bail "allow"
alice_starts || tap_bail "alice"
tap "with the identity server alone, a NAT that maps by address looks easy" wait_for 30 alices_nat_is endpoint-independent
alice_starts 'stun = stun.example:3478' || tap_bail "alice"
tap "with coturn, it is recognised" wait_for 30 alices_nat_is endpoint-dependent
tap "doctor says what kind it is" says 'a hard NAT' on alice q2q-tun doctor
tap "and who said what" says '"server": *"192\.0\.3\.20:3478"' on alice q2q-tun --json doctor
tap "so that ports are guessed, and packets go directly" wait_for 30 is_direct

lab_nat nat-a easy || tap_bail "an easy NAT"
alice_starts 'stun = 192.0.3.99:3478' 'stun = nobody.example:3478' || tap_bail "alice"
tap "with a silent server, packets go directly" wait_for 30 is_direct
tap "and the NAT is known" alices_nat_is endpoint-independent
alice_starts 'stun = 192.0.3.21:3478' || tap_bail "alice"
tap "with a server that lies, packets go directly" wait_for 30 is_direct
tap "it was asked" wait_for 30 grep -q said "$LAB_DIR/liar.log"
tap "and is not believed: the NAT is known" alices_nat_is endpoint-independent
tap "no lie is told" no_lie
tap "the log names it" grep -q '192.0.3.21:3478 says that we are .* not believed' "$LAB_DIR/alice-q2q-tund.log"
tap_done
