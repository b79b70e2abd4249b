# shellcheck shell=bash
# The lab that most end-to-end tests begin with: the internet of lab.sh, a
# server for server.test, alice and bob registered, names by NSS.

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 99
. ./tap.sh
. ./lab.sh

# tunnel_lab NAME [NAT-A NAT-B]
tunnel_lab() {
    local reason host
    reason=$(lab_need_root) || tap_skip_all "$reason"
    command -v dnsmasq >/dev/null || tap_skip_all "dnsmasq is missing (package dnsmasq-base)"
    [ -x "${abs_top_builddir:-/nonexistent}/tests/netns/root/usr/local/sbin/q2q-tund" ] ||
        tap_bail "q2q-tun is not installed into tests/netns/root; run this by make check"
    lab_start "$1"
    lab_use_root "$abs_top_builddir/tests/netns/root"
    lab_internet "${2:-easy}" "${3:-easy}" || tap_bail "the lab's network"
    lab_dns core 192.0.2.1 --host-record=server.test,192.0.2.10 --srv-host=_q2q._tcp.server.test,server.test,8788
    on server q2q-server --data-dir "$LAB_DATA" init server.test >/dev/null || tap_bail "q2q-server init"
    lab_server_start server 192.0.2.10:8788 || tap_bail "q2q-server run"
    for host in alice bob; do
        lab_names_by_nss $host
        lab_daemon_start $host || tap_bail "q2q-tund of $host"
    done
}

tunnel_lab_register() {
    lab_register alice alice@server.test server >/dev/null || tap_bail "register alice"
    lab_register bob bob@server.test server >/dev/null || tap_bail "register bob"
}

tunnel_lab_up() {
    on bob q2q-tun allow alice@server.test --yes >/dev/null || tap_bail "allow"
    on alice q2q-tun up bob@server.test --yes >/dev/null || tap_bail "up"
}

# status_of HOST JSON-PATH: one field of `status --json`, as python would index it
status_of() {
    on "$1" q2q-tun --json status | python3 -c "import json,sys; s=json.load(sys.stdin); print(s$2)"
}

peer_state_is() {
    [ "$(status_of "$1" "['peers'][0]['state']")" = "$2" ]
}

path_kind_is() {
    [ "$(status_of "$1" "['peers'][0]['path']['kind']")" = "$2" ]
}

# Whether a ping of alice that wrote ping.log lost next to nothing; a busy machine may drop one.
packets_passed() {
    tail -n 3 "$LAB_DIR/ping.log"
    sed -n 's/ packets transmitted, \([0-9]*\) received.*/ \1/p' "$LAB_DIR/ping.log" |
        awk '{ good = $1 > 50 && $2 >= 0.98 * $1 } END { exit !good }'
}
