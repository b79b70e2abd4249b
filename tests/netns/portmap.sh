#!/usr/bin/env bash
# A port that the router gives makes a direct path where there is none: between two
# NATs that both map per destination. miniupnpd speaks PCP, NAT-PMP or UPnP, one at a time.
. "$(dirname "$0")/tunnel_lab.sh"
. ./portmap_lab.sh
portmap_lab portmap

told() {
    on alice q2q-tun --json status bob@server.test | grep -q "\"$PORTMAP_OUTSIDE:"
}

is_direct() {
    path_kind_is alice direct-udp
}

relay_only() {
    wait_for 10 path_kind_is alice relay-udp && sleep 2 && ! is_direct
}

# How the daemon's own words name it, once for each method
in_words() {
    says "your router maps UDP $PORTMAP_OUTSIDE:[0-9]+ to this machine by $1, until " on alice q2q-tun doctor &&
        says "^port: your router maps UDP $PORTMAP_OUTSIDE:[0-9]+ .* by $1, until " on alice q2q-tun status
}

tap "a gateway that speaks PCP" gateway pcp
alice_starts 'port-mapping = off' || tap_bail "alice"
tunnel_lab_up
tap "without a port of the router's, the two are left to the relay" relay_only
tap "then none is mapped" is_unmapped
tap "doctor says that it is off" says 'port-mapping = off' on alice q2q-tun doctor

alice_starts || tap_bail "alice"
tap "PCP gives us a port" mapping PCP && show_mapping
tap "in words" in_words PCP
on alice q2q-tun up bob@server.test --yes >/dev/null
tap "the peer is told of it" wait_for 30 told
tap "packets go directly" wait_for 60 is_direct
gateway_stop
tap "a gateway that restarts has lost it" gateway pcp
tap "which is noticed at once" wait_for 30 is_mapped
tap "and said" alice_log_says 'the gateway has restarted'
lab_end alice q2q-tund
tap "it is given back at the end" wait_for 30 is_unmapped
tap_done
