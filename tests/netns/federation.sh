#!/usr/bin/env bash
# alice@a.test reaches bob@b.test through two servers that never met.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/lab.sh"
reason=$(lab_need_root) || tap_skip_all "$reason"
lab_start federation
lab_use_root "$abs_top_builddir/tests/netns/root"
lab_internet || tap_bail "the lab's network"
lab_host server-b
lab_link core 192.0.3.1/24 server-b 192.0.3.10/24 srvb eth0
on server-b ip route add default via 192.0.3.1
lab_dns core 192.0.2.1 --host-record=q2q.a.test,192.0.2.10 --srv-host=_q2q._tcp.a.test,q2q.a.test,9000 \
    --host-record=b.test,192.0.3.10
on server q2q-server --data-dir "$LAB_DATA" init a.test >/dev/null || tap_bail "init a.test"
on server-b q2q-server --data-dir "$LAB_DATA" init b.test >/dev/null || tap_bail "init b.test"
# a.test is found by its SRV record on another port, b.test by its address record on the usual one.
lab_server_start server 192.0.2.10:9000 || tap_bail "server of a.test"
lab_server_start server-b 192.0.3.10:8788 || tap_bail "server of b.test"
for host in alice bob; do
    lab_names_by_nss $host
    lab_daemon_start $host || tap_bail "q2q-tund of $host"
done
tap "alice registers at a.test, found by SRV" lab_register alice alice@a.test server
tap "bob registers at b.test, found by its address" lab_register bob bob@b.test server-b
tap "bob allows alice of another domain" on bob q2q-tun allow alice@a.test --yes
tap "alice brings the tunnel up" on alice q2q-tun up bob@b.test --yes
tap "ping by name" on alice ping -c 3 -i 0.2 -W 2 bob.b.test.q2q
tap "a direct path" on alice q2q-tun wait bob@b.test --direct --timeout 60
tap "and the other way it is the same tunnel" on bob ping -c 3 -i 0.2 -W 2 alice.a.test.q2q
tap_done
