#!/usr/bin/env bash
# Two servers that never met, one in a network that lets nothing of TCP through but port 443.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/lab.sh"
. "$(dirname "$0")/federation_lab.sh"
reason=$(lab_need_root) || tap_skip_all "$reason"
lab_start federation_443
walled_servers() {
    on server-b nft -f - <<'NFT' || tap_bail "the firewall"
table inet walled {
    chain in {
        type filter hook input priority 0;
        iifname "lo" accept;
        ct state established accept;
        ip saddr 192.0.2.10 tcp dport != 443 drop;
    }
    chain out {
        type filter hook output priority 0;
        oifname "lo" accept;
        ct state established accept;
        meta l4proto tcp tcp dport != 443 drop;
    }
}
NFT
    lab_server_start server 192.0.2.10:9000 --listen 192.0.2.10:443 || tap_bail "server of a.test"
    lab_server_start server-b 192.0.3.10:8788 --listen 192.0.3.10:443 || tap_bail "server of b.test"
}
federation_lab walled_servers
federation_meet
tap "the server of b.test fetched the certificate of a.test, by port 443 alone" federation_fetched server-b
tap "bob reaches alice" on bob ping -c 3 -i 0.2 -W 2 alice.a.test.q2q
tap_done
