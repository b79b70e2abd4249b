#!/usr/bin/env bash
# The same by NAT-PMP and by UPnP; and renewals, ends of other kinds, and who speaks nothing.
. "$(dirname "$0")/tunnel_lab.sh"
. ./portmap_lab.sh

# Each gateway in a lab of its own, all at the same time: most of it is waiting.
GATEWAYS='pmp upnp upnp1'
declare -A RUNS
all_gateways() {
    local each
    OUT=$(mktemp -d /tmp/q2q-portmap.XXXXXX)
    trap 'kill "${RUNS[@]}" 2>/dev/null; wait; rm -rf "$OUT"' EXIT
    trap 'exit 143' INT TERM HUP
    for each in $GATEWAYS; do
        bash ./portmap_others.sh "$each" >"$OUT/$each" 2>&1 &
        RUNS[$each]=$!
    done
    for each in $GATEWAYS; do
        wait "${RUNS[$each]}" || { cat "$OUT/$each"; echo "Bail out! the gateway of $each"; exit 1; }
    done
    for each in $GATEWAYS; do
        grep -q '^1\.\.0 # SKIP' "$OUT/$each" && { cat "$OUT/$each"; exit; }
    done
    # One numbering, one plan.
    for each in $GATEWAYS; do cat "$OUT/$each"; done | awk '
        match($0, /^(not )?ok [0-9]+/) { ok = $1 == "not" ? "not ok " : "ok "
            printf "%s%d%s\n", ok, ++n, substr($0, RLENGTH + 1); next }
        /^1\.\.[0-9]+$/ { next }
        { print }
        END { printf "1..%d\n", n }'
    exit
}
[ $# -gt 0 ] || all_gateways
portmap_lab "portmap-$1"

is_direct() {
    path_kind_is alice direct-udp
}

# The rule goes without the gateway's knowledge; who renews finds it there again.
is_renewed() {
    on nat-a nft flush chain inet up premap && wait_for 60 is_mapped
}

killed() {
    lab_end alice q2q-tund KILL && wait_for 30 is_unmapped
}

helper_is_closed_in() {
    local pid status
    pid=$(lab_pids alice q2q-tun-upnp) && status=$(on alice cat "/proc/$pid/status") || return
    echo "$status"
    grep -q '^Uid:.64188.64188.64188.64188' <<<"$status" && grep -q '^CapEff:.0*$' <<<"$status" &&
        grep -q '^CapBnd:.0*$' <<<"$status" && grep -q '^NoNewPrivs:.1' <<<"$status" &&
        grep -q '^Seccomp:.2' <<<"$status" && on alice sh -c "ls -l /proc/$pid/fd" | grep -c socket: | grep -qx 1
}

# Somebody else on the LAN has the port already.
taken() {
    on alice ip addr add 10.1.0.3/24 dev eth0
    spawn alice other.log "$LAB_TOP/tests/netns/igd.py" ask "$abs_top_builddir/tests/netns/root/usr/local/libexec/q2q-tun/q2q-tun-upnp" \
        10.1.0.1 10.1.0.3 41641 3600 map hold:120
    wait_for 30 grep -q '^map done' "$LAB_DIR/other.log" && premap | grep -q 'dport 41641 dnat ip to 10.1.0.3:41641'
}
gives_back_ours() {
    lab_end alice q2q-tund
    wait_for 30 eval '! is_mapped' && says 'dnat ip to 10.1.0.3:41641' premap
}

gateway_pmp() {
    tap "a gateway that speaks NAT-PMP alone" gateway pmp
    alice_starts 'port-mapping-lifetime = 10' || tap_bail "alice"
    tunnel_lab_up
    tap "NAT-PMP gives us a port" mapping NAT-PMP && show_mapping
    tap "packets go directly" wait_for 60 is_direct
    tap "it is renewed" is_renewed
    lab_end alice q2q-tund
    # Sooner than the gateway would forget it by itself.
    tap "it is given back at the end" wait_for 4 is_unmapped
}

gateway_upnp() {
    tap "a gateway that speaks UPnP alone" gateway upnp
    alice_starts 'port-mapping-lifetime = 10' || tap_bail "alice"
    tunnel_lab_up
    tap "UPnP gives us a port" mapping UPnP && show_mapping
    tap "in words" says 'your router maps UDP .* by UPnP, until ' on alice q2q-tun doctor
    # A build with sanitizers goes without filters.
    ldd "$(command -v "$abs_top_builddir/tests/netns/root/usr/local/sbin/q2q-tund")" | grep -q libasan ||
        tap "the process that talks UPnP has nothing but its sockets" helper_is_closed_in
    tap "packets go directly" wait_for 60 is_direct
    tap "it is renewed" is_renewed
    lab_end alice q2q-tund
    # Sooner than the gateway would forget it by itself.
    tap "it is given back at the end" wait_for 4 is_unmapped
    alice_starts 'port-mapping = auto' || tap_bail "alice"
    tap "and is there again" mapping UPnP
    tap "it is given back though the daemon is killed" killed
}

gateway_upnp1() {
    tap "a gateway of the first version" gateway upnp1
    tap "whose port is taken" taken
    LAB_DAEMON_OPTIONS='--port 41641' alice_starts || tap_bail "alice"
    tap "gives us another one" mapping UPnP && show_mapping
    tap "to our own" says 'dnat ip to 10.1.0.2:41641' premap
    tap "and takes back that alone" gives_back_ours
    on alice pkill -f 'igd.py ask'
    tap "whoever else asked gives back when it is killed" wait_for 30 is_unmapped
    alice_starts 'port-mapping = pcp' || tap_bail "alice"
    tap "UPnP can be left out" wait_for 60 says 'answers neither PCP nor NAT-PMP$' on alice q2q-tun doctor
    tap "then nobody is there to speak it" wait_for 30 eval '! lab_pids alice q2q-tun-upnp'
}

"gateway_$1"
tap_done
