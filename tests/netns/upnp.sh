#!/usr/bin/env bash
# q2q-tun-upnp, alone: with gateways that do as they should, and with such that lie.
. "$(dirname "$0")/lab.sh"
. "$(dirname "$0")/tap.sh"
PROGRAM=$abs_top_builddir/tests/netns/root/usr/local/libexec/q2q-tun/q2q-tun-upnp
IGD=$LAB_TOP/tests/netns/igd.py
lab_need_root >/dev/null 2>&1 || tap_skip_all "namespaces or nft are missing, or this is not root"
[ -x /usr/bin/python3 ] || tap_skip_all "/usr/bin/python3 is missing"
[ -x "$PROGRAM" ] || tap_skip_all "built without UPnP"
lab_start upnp
lab_host home router || tap_bail "no lab"
lab_link router 192.168.1.1/24 home 192.168.1.2/24 lan eth0
on router ip addr add 192.168.1.9/24 dev lan
on home ip route add default via 192.168.1.1
on home sh -c 'echo "192.168.1.9 router.test" >>/etc/hosts'

# gateway KIND: one that is so
gateway() {
    on router pkill -f igd.py
    : >"$LAB_DIR/$1.log"
    spawn router "$1.log" "$IGD" serve "$1" 192.168.1.1 192.168.1.9
    GATEWAY_LOG=$LAB_DIR/$1.log
    wait_for 30 grep -q ready "$GATEWAY_LOG"
}

# is KIND ANSWER [ASKED...]: what comes of `map` there, and what the gateway is asked; `not` turns round
is() {
    local kind=$1 answer=$2 each want=0 said op=${OP:-map}
    shift 2
    gateway "$kind" || { echo "no gateway"; return 1; }
    said=$(on home "$IGD" ask "$PROGRAM" 192.168.1.1 192.168.1.2 41641 3600 "$op" 2>"$LAB_DIR/$kind.error")
    echo "$said"
    # A conversation that crashes is survived; where a sanitizer looks, it is seen.
    ! grep -A20 -E 'Sanitizer|runtime error' "$LAB_DIR/$kind.error" || return
    cat "$GATEWAY_LOG"
    grep -q "^$op $answer" <<<"$said" && grep -qx 'exit status 0' <<<"$said" || return 1
    grep -q ELSEWHERE "$GATEWAY_LOG" && return 1
    for each in "$@"; do
        [ "$each" = not ] && { want=1; continue; }
        grep -q "$each" "$GATEWAY_LOG"
        [ $? -eq $want ] || { echo "$each"; return 1; }
    done
}

tap "it maps for an hour, and gives back when the daemon is gone" is plain 'done 9.8.7.6 41641 3600' \
    'AddPortMapping 41641 192.168.1.2 3600' 'DeletePortMapping 41641'
tap "a second-generation gateway chooses the port" is second 'done 9.8.7.6 40123 3600' AddAnyPortMapping \
    'DeletePortMapping 40123' not ' AddPortMapping'
tap "a port that is taken: another one" is taken 'done 9.8.7.6 [0-9]* 3600' 'AddPortMapping 41641'
tap "all are taken: not for ever" is always-taken 'refused'
tap "only for ever" is permanent 'done 9.8.7.6 41641 0' 'AddPortMapping 41641 192.168.1.2 0'
tap "the second way out, if the first does not work" is two-ways 'done 9.8.7.6 41641'
tap "a gateway that says no" is refuses 'refused' not Delete
tap "nothing is mapped behind another NAT" is hidden 'hidden 192.168.7.7' not AddPortMapping
tap "nor behind a carrier's" is hidden-cgn 'hidden 100.64.1.1' not AddPortMapping
tap "nor without an address" is no-address 'hidden 0.0.0.0' not AddPortMapping
tap "an address that is none" is empty-address '\(broken\|refused\)' not AddPortMapping
tap "values longer than any" is long-values 'broken' not AddPortMapping
tap "noise around the answer" is noise 'done 9.8.7.6 41641'
tap "answers from others, by others than gateways, and to elsewhere" is lies 'silent' not Get
tap "a redirection to elsewhere" is redirect '\(broken\|silent\)' not Get
tap "a base that is elsewhere" is base-elsewhere 'broken' not Get
tap "a base that is a name" is base-by-name 'broken' not Get
tap "a service that is elsewhere" is control-elsewhere 'broken' not Get
tap "no service" is no-service 'broken' not Get
tap "an HTTP answer that never ends" is endless '\(broken\|silent\)' not Get
tap "a negative length" is negative-length '\(broken\|silent\)' not Get
tap "chunks that are none" is chunks '\(broken\|silent\)' not Get
tap "XML that is none" is junk '\(broken\|silent\)' not Get
tap "names longer than any" is long-names '\(broken\|silent\)' not Get
OP=unmap:41641
tap "an HTTP answer of a byte now and then is cut off" is slow 'broken .*in \([4-9]\|[12][0-9]\) s' not Get
tap_done
