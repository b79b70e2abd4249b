#!/usr/bin/env bash
# The same by NAT-PMP and by UPnP; and renewals, ends of other kinds, and who speaks nothing.
. "$(dirname "$0")/tunnel_lab.sh"
. ./portmap_lab.sh
portmap_lab portmap-others

is_direct() {
    path_kind_is alice direct-udp
}

# The rule goes without the gateway's knowledge; who renews finds it there again.
is_renewed() {
    on nat-a nft flush chain inet up premap && wait_for 12 is_mapped
}

killed() {
    lab_end alice q2q-tund KILL && wait_for 6 is_unmapped
}

helper_is_closed_in() {
    local pid status
    pid=$(lab_pids alice q2q-tun-upnp) && status=$(on alice cat "/proc/$pid/status") || return
    echo "$status"
    grep -q '^Uid:.64188.64188.64188.64188' <<<"$status" && grep -q '^CapEff:.0*$' <<<"$status" &&
        grep -q '^CapBnd:.0*$' <<<"$status" && grep -q '^NoNewPrivs:.1' <<<"$status" &&
        grep -q '^Seccomp:.2' <<<"$status" && on alice sh -c "ls -l /proc/$pid/fd" | grep -c socket: | grep -qx 1
}

tap "a gateway that speaks NAT-PMP alone" gateway pmp
alice_starts 'port-mapping-lifetime = 10' || tap_bail "alice"
tunnel_lab_up
tap "NAT-PMP gives us a port" mapping NAT-PMP && show_mapping
tap "packets go directly" wait_for 20 is_direct
tap "it is renewed" is_renewed
lab_end alice q2q-tund
tap "it is given back at the end" wait_for 2 is_unmapped
gateway_stop

tap "a gateway that speaks UPnP alone" gateway upnp
alice_starts 'port-mapping-lifetime = 10' || tap_bail "alice"
on alice q2q-tun up bob@server.test --yes >/dev/null
tap "UPnP gives us a port" mapping UPnP && show_mapping
tap "in words" says 'your router maps UDP .* by UPnP, until ' on alice q2q-tun doctor
# A build with sanitizers goes without filters.
ldd "$(command -v "$abs_top_builddir/tests/netns/root/usr/local/sbin/q2q-tund")" | grep -q libasan ||
    tap "the process that talks UPnP has nothing but its sockets" helper_is_closed_in
tap "packets go directly" wait_for 20 is_direct
tap "it is renewed" is_renewed
tap "it is given back though the daemon is killed" killed
alice_starts 'port-mapping = auto' || tap_bail "alice"
tap "and is there again" mapping UPnP
lab_end alice q2q-tund
tap "it is given back at the end" wait_for 2 is_unmapped
gateway_stop

# Somebody else on the LAN has the port already.
taken() {
    on alice ip addr add 10.1.0.3/24 dev eth0
    spawn alice other.log "$LAB_TOP/tests/netns/igd.py" ask "$abs_top_builddir/tests/netns/root/usr/local/libexec/q2q-tun/q2q-tun-upnp" \
        10.1.0.1 10.1.0.3 41641 3600 map hold:30
    wait_for 10 grep -q '^map done' "$LAB_DIR/other.log" && premap | grep -q 'dport 41641 dnat ip to 10.1.0.3:41641'
}
tap "a gateway of the first version" gateway upnp1
tap "whose port is taken" taken
LAB_DAEMON_OPTIONS='--port 41641' alice_starts || tap_bail "alice"
tap "gives us another one" mapping UPnP && show_mapping
tap "to our own" says 'dnat ip to 10.1.0.2:41641' premap
gives_back_ours() {
    lab_end alice q2q-tund
    wait_for 2 eval '! is_mapped' && says 'dnat ip to 10.1.0.3:41641' premap
}
tap "and takes back that alone" gives_back_ours
on alice pkill -f 'igd.py ask'
tap "whoever else asked gives back when it is killed" wait_for 8 is_unmapped
alice_starts 'port-mapping = pcp' || tap_bail "alice"
tap "UPnP can be left out" wait_for 12 says 'answers neither PCP nor NAT-PMP$' on alice q2q-tun doctor
tap "then nobody is there to speak it" wait_for 8 eval '! lab_pids alice q2q-tun-upnp'
gateway_stop
tap_done
