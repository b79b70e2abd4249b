#!/usr/bin/env bash
# The lab's NATs are what their names say: a program behind each asks two
# addresses with two ports each what they see of it.
. "$(dirname "$0")/lab.sh"
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/nat_lab.sh"
CLASSIFY=$LAB_TOP/tests/netns/nat_classify.py
lab_need_root >/dev/null 2>&1 || tap_skip_all "namespaces or nft are missing, or this is not root"
[ -x /usr/bin/python3 ] || tap_skip_all "/usr/bin/python3 is missing"
lab_start kinds
lab_internet easy easy || tap_bail "no lab"
on server ip addr add 192.0.2.11/24 dev eth0
spawn server classify.log "$CLASSIFY" serve 192.0.2.10 192.0.2.11
wait_for 20 on server sh -c 'ss -Hlun sport = :3479 | grep -q .' || tap_bail "the answering program"

# is KIND FINDING...: each finding is among those behind a NAT of that kind.
is() {
    local found finding lifetime=
    lab_nat nat-a "$1" || return
    case $1 in *timeout=*) lifetime=2 ;; esac
    shift
    found=$(on alice "$CLASSIFY" classify 192.0.2.10 192.0.2.11 $lifetime) || return
    echo "$found"
    for finding in "$@"; do
        grep -qwF -- "$finding" <<<"$found" || { echo "not $finding"; return 1; }
    done
}

independent='mapping=independent(preserved)' dependent=mapping=address-and-port open='tcp443=yes icmp=yes'
# shellcheck disable=SC2086 # words
{
    tap "easy" is easy "$independent" filtering=by-port hairpin=no poisoned=no $open
    tap "easy-open-input is poisoned by what comes early" is easy-open-input "$independent" filtering=by-port poisoned=yes
    tap "by-address" is by-address "$independent" filtering=by-address hairpin=no poisoned=no $open
    tap "easy-eif" is easy-eif "$independent" filtering=none hairpin=no poisoned=no $open
    tap "hairpin" is none,hairpin "$independent" filtering=none hairpin=yes
    tap "address-dependent" is address mapping=address filtering=by-port
    tap "hard" is hard $dependent filtering=by-port ports=random
    tap "a carrier's block of ports" is random,block=20000-20511 $dependent ports=random
    tap "sequential" is sequential $dependent filtering=by-port ports=sequential
    tap "no UDP" is no-udp mapping=none-passes tcp443=yes tcp8788=yes icmp=yes
    tap "only TCP 443" is only-443 mapping=none-passes tcp443=yes tcp8788=no icmp=no
    tap "no ICMP" is no-icmp "$independent" tcp443=yes icmp=no
    tap "mappings that live one second" is timeout=1 "$independent" lives-2s=no
    tap "and such that live longer" is timeout=5 "$independent" lives-2s=yes
    tap "no NAT, but a firewall" is plain mapping=none-passes
}

# Two homes behind nat-a, as behind a carrier's NAT, each with a NAT of its own and a machine.
carrier_has() {
    nat_lab_home "home$1" nat-a "$1" && nat_lab_machine "machine$1" "home$1"
}
# homes CARRIER-KIND FINDING: what comes when both machines send to what the server sees of the other
homes() {
    local each pids=() result=0
    rm -f "$LAB_DIR"/meet[12]
    lab_nat nat-a "$1" && lab_nat home1 easy && lab_nat home2 easy || return
    for each in 1 2; do
        on "machine$each" "$CLASSIFY" meet 192.0.2.10 192.0.2.11 "$LAB_DIR/meet$each" "$LAB_DIR/meet$((3 - each))" \
            >"$LAB_DIR/met$each" &
        pids+=($!)
    done
    wait "${pids[@]}"
    for each in 1 2; do
        echo "machine$each: $(cat "$LAB_DIR/met$each"), outside $(cat "$LAB_DIR/meet$each")"
        grep -qx "$2" "$LAB_DIR/met$each" || result=1
    done
    return $result
}
lab_host machine1 machine2 && carrier_has 1 && carrier_has 2 || tap_bail "no homes"
tap "two homes behind one carrier's NAT do not meet" homes easy meets=no
tap "nor if it lets everybody in, but not its own" homes none meets=no
tap "unless it hairpins" homes none,hairpin meets=outside
tap "a home's machine is behind both NATs, each of them easy" says 'mapping=independent.preserved.*filtering=by-port' \
    on machine1 "$CLASSIFY" classify 192.0.2.10 192.0.2.11
tap_done
