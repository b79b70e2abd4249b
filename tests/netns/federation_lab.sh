# shellcheck shell=bash
# Sourced after lab.sh: two domains, alice@a.test at `server`, bob@b.test at `server-b`, that never met.
# federation_lab FUNCTION, the one starts the servers.

federation_lab() {
    lab_use_root "$abs_top_builddir/tests/netns/root"
    lab_internet || tap_bail "the lab's network"
    lab_host server-b
    lab_link core 192.0.3.1/24 server-b 192.0.3.10/24 srvb eth0
    on server-b ip route add default via 192.0.3.1
    lab_dns core 192.0.2.1 --host-record=q2q.a.test,192.0.2.10 --srv-host=_q2q._tcp.a.test,q2q.a.test,9000 \
        --host-record=b.test,192.0.3.10
    on server q2q-server --data-dir "$LAB_DATA" init a.test >/dev/null || tap_bail "init a.test"
    on server-b q2q-server --data-dir "$LAB_DATA" init b.test >/dev/null || tap_bail "init b.test"
    "$1"
    for host in alice bob; do
        lab_names_by_nss $host
        lab_daemon_start $host || tap_bail "q2q-tund of $host"
    done
}

# What a server knows of the other domain.
federation_fetched() {
    on "$1" q2q-server --data-dir "$LAB_DATA" --json status |
        /usr/bin/python3 -c 'import json,sys; sys.exit(json.load(sys.stdin)["counters"]["domains_fetched"] != 1)'
}

federation_meet() {
    tap "alice registers at a.test, found by SRV" lab_register alice alice@a.test server
    tap "bob registers at b.test, found by its address" lab_register bob bob@b.test server-b
    tap "bob allows alice of another domain" on bob q2q-tun allow alice@a.test --yes
    tap "alice brings the tunnel up" on alice q2q-tun up bob@b.test --yes
    tap "ping by name" on alice ping -c 3 -i 0.2 -W 2 bob.b.test.q2q
}
