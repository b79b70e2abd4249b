#!/usr/bin/env bash
# alice@a.test reaches bob@b.test through two servers that never met.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/lab.sh"
. "$(dirname "$0")/federation_lab.sh"
reason=$(lab_need_root) || tap_skip_all "$reason"
lab_start federation
# a.test is found by its SRV record on another port, b.test by its address record on the usual one; nothing listens on 443.
servers() {
    lab_server_start server 192.0.2.10:9000 || tap_bail "server of a.test"
    lab_server_start server-b 192.0.3.10:8788 || tap_bail "server of b.test"
}
federation_lab servers
federation_meet
tap "the server of b.test fetched the certificate of a.test" federation_fetched server-b
tap "a direct path" on alice q2q-tun wait bob@b.test --direct --timeout 60
tap "and the other way it is the same tunnel" on bob ping -c 3 -i 0.2 -W 2 alice.a.test.q2q
tap_done
