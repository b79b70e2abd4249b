#!/usr/bin/env bash
# Networks of IPv6 alone: stateful firewalls on both sides and on one, and NAT64,
# through which peers and servers of IPv4 alone are reached.
cd "$(dirname "$0")" || exit 99
. ./tap.sh
. ./lab.sh
. ./nat_lab.sh
nat_lab_start six || tap_bail "the lab"
nat_lab_side left v6 || tap_bail "IPv6 behind a firewall"
nat_lab_side right v6 || tap_bail "IPv6 behind another firewall"
nat_lab_side open public || tap_bail "a machine without a firewall"

# direct_by FAMILY A B: their tunnel is direct by that address family within 15 s.
direct_by() {
    local run
    run=$(nat_lab_run "$2" "$3" 15 | tail -n 1)
    echo "$run" | cut -c1-600
    /usr/bin/python3 - "$run" "$1" <<'PYTHON'
import json, sys
run, family = json.loads(sys.argv[1]), sys.argv[2]
assert run["ok"], "no packet came through"
assert run["direct_ms"] is not None, "not direct"
assert run["path"]["remote"].startswith("[") == (family == "6"), "the other family"
PYTHON
}

# Nothing that the other side did not ask for passes: the firewalls have seen no flow before.
nat_lab_meet left right || tap_bail "they do not meet"
tap "firewalls on both sides" direct_by 6 left right
nat_lab_meet left open || tap_bail "they do not meet"
tap "a firewall on our side" direct_by 6 left open
nat_lab_meet open left || tap_bail "they do not meet"
tap "a firewall on the peer's side" direct_by 6 open left

if ! command -v tayga >/dev/null; then
    tap_done
    exit
fi
nat_lab_side six nat64 || tap_bail "NAT64"
nat_lab_side home easy || tap_bail "IPv4 behind a NAT"
nat_lab_meet home six || tap_bail "they do not meet"
tap "a peer of IPv4 alone behind a NAT reaches one behind NAT64" direct_by 4 home six
nat_lab_meet six home || tap_bail "they do not meet"
tap "and the other way around" direct_by 4 six home
tap "doctor says how" says 'NAT64' on six q2q-tun doctor

# A resolver that makes up nothing but what RFC 7050 asks for: the server's name has an A record.
on six-nat ip addr add "$(on six-nat ip -6 -o addr show dev lan scope global |
    sed -E 's/.* (2001:[^ ]*)::1\/64.*/\1::53/; q')/64" dev lan
PLAIN=$(on six-nat ip -6 -o addr show dev lan | sed -nE 's/.* ([^ ]*::53)\/64.*/\1/p')
spawn six-nat plain-dns.log dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv \
    --no-hosts --listen-address="$PLAIN" --bind-interfaces --except-interface=lo --pid-file= --user=root \
    --local=/test/ --local=/arpa/ --host-record=server.test,192.0.2.10 \
    --host-record="ipv4only.arpa,192.0.0.170,$NAT_LAB_PREFIX64::c000:aa" \
    --srv-host=_q2q._tcp.server.test,server.test,8788
nat_lab_resolver six "$PLAIN"
tap "a server that has an A record alone, without DNS64" direct_by 4 six home
tap_done
