#!/usr/bin/env bash
# The shortest way through everything: a server and two daemons on one network,
# without NAT or DNS. Register, authorize, allow, up; packets by the relay alone,
# then directly; down.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 99
. ./tap.sh
. ./lab.sh

reason=$(lab_need_root) || tap_skip_all "$reason"
[ -x "${abs_top_builddir:-/nonexistent}/tests/netns/root/usr/local/sbin/q2q-tund" ] ||
    tap_bail "q2q-tun is not installed into tests/netns/root; run this by make check"
lab_start smoke
lab_use_root "$abs_top_builddir/tests/netns/root"
lab_host server alice bob
lab_link server 10.9.1.1/24 alice 10.9.1.2/24 a eth0
lab_link server 10.9.2.1/24 bob 10.9.2.2/24 b eth0
lab_forward server
on alice ip route add default via 10.9.1.1
on bob ip route add default via 10.9.2.1

on server q2q-server --data-dir "$LAB_DATA" init smoke.test >/dev/null || tap_bail "q2q-server init"
lab_server_start server 0.0.0.0:8788 || tap_bail "q2q-server run"
for host in alice bob; do
    lab_daemon_start $host || tap_bail "q2q-tund of $host"
    echo "a password of $host" | on $host sh -c 'umask 077; cat >/root/password'
done

register() {
    local invite
    invite=$(on server q2q-server --data-dir "$LAB_DATA" invite create) || return
    on "$1" q2q-tun register "$1@smoke.test" --server "$2:8788" --password-file /root/password --invite "$invite" --yes
}
status_of() {
    on "$1" q2q-tun --json status | python3 -c "import json,sys; s=json.load(sys.stdin); print(s$2)"
}
path_is() {
    [ "$(status_of "$1" "['peers'][0]['path']['kind']")" = "$2" ]
}

tap "alice registers at a server that no DNS names" register alice 10.9.1.1
tap "bob registers" register bob 10.9.2.1
tap "bob is told what to do when he is not let in" says 'allow bob@smoke.test' on bob q2q-tun up alice@smoke.test --yes
tap "alice allows bob" on alice q2q-tun allow bob@smoke.test
tap "bob brings it up, through the relay alone" on bob q2q-tun up alice@smoke.test --yes --path relay
address=$(status_of bob "['peers'][0]['ipv4']")
tap "packets pass" on bob ping -c 3 -i 0.2 -W 2 "$address"
by_relay() {
    path_is bob relay-tcp || path_is bob relay-udp # soon
}
tap "through the relay" by_relay
tap "then directly" on bob q2q-tun up alice@smoke.test --path direct
tap "packets pass still" on bob ping -c 3 -i 0.2 -W 2 "$address"
tap "directly" path_is bob direct-udp
tap "a large packet passes too" on bob ping -c 2 -i 0.2 -W 2 -s 20000 "$address"
tap "bob ends it" on bob q2q-tun down alice@smoke.test
no_interface() {
    ! on "$1" ip -br link | grep ^q2q-
}
tap "his interface is gone" no_interface bob
tap "and alice's soon too" wait_for 30 no_interface alice
tap "his daemon ends when asked to" on bob sh -c 'kill -TERM $(pgrep -o -x q2q-tund)'
tap "soon" wait_for 30 eval '! on bob pgrep -x q2q-tund -r R,S,D'
tap_done
