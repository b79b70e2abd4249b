#!/usr/bin/env bash
# What the network below can carry is found, from 1280 to 9000 bytes, and followed
# when it changes in the middle of a transfer, where no ICMP tells of it. The MTU
# of the tunnel's own interface stays 1500.
cd "$(dirname "$0")" || exit 99
. ./tap.sh
. ./lab.sh
. ./nat_lab.sh
nat_lab_start mtu || tap_bail "the lab"
nat_lab_side alice no-icmp || tap_bail "alice"
nat_lab_side bob no-icmp || tap_bail "bob"
on core nft -f - <<'NFT'
table inet quiet {
  chain out {
    type filter hook output priority 0;
    icmp type destination-unreachable drop;
  }
}
NFT
UPLINK=$(on bob-nat ip -4 -o addr show dev wan | sed -E 's/.*198\.18\.([0-9]+)\.2.*/s\1/')

# All links carry so much, but the one between the core and bob's router, which carries BYTES.
links() {
    local each
    for each in "alice eth0" "alice-nat lan" "alice-nat wan" "core s1" "core s2" "bob-nat wan" "bob-nat lan" "bob eth0"; do
        # shellcheck disable=SC2086 # host and interface
        on ${each% *} ip link set dev ${each#* } mtu "$1" || return
    done
}
narrow() {
    on core ip link set dev "$UPLINK" mtu "$1" && on bob-nat ip link set dev wan mtu "$1"
}

# The largest datagram that HOST sends to PEER, as status tells it.
largest() {
    on "$1" q2q-tun --json status "$2@server.test" | /usr/bin/python3 -c '
import json, sys
path = json.load(sys.stdin)["peers"][0]["path"]
print(path["mtu"] if path and path["kind"] == "direct-udp" else path and path["kind"])'
}
carries() {
    local found
    found=$(largest "$1" "$2")
    [ "$found" = "$3" ] || { echo "$1 sends $found bytes at most"; return 1; }
}
both_carry() {
    wait_for "$1" carries alice bob "$2" && wait_for 20 carries bob alice "$2" && return
    carries alice bob "$2"
    carries bob alice "$2"
    return 1
}
device_stays() {
    says 'mtu 1500' on alice ip link show q2q-bob && says 'mtu 1500' on bob ip link show q2q-alice
}

# Something larger than any of the MTUs in both directions, so that they matter: COUNT times.
fill() {
    on alice ping -q -c "$1" -i 0.02 -s 20000 -W 1 "$BOB" >/dev/null
}
begins_with() {
    links "$1" && nat_lab_renew alice bob && on alice q2q-tun up bob@server.test --yes >/dev/null &&
        on alice q2q-tun wait bob@server.test --direct --timeout 60 >/dev/null &&
        fill 20 && both_carry 20 "$2" && device_stays
}

nat_lab_meet alice bob || tap_bail "they do not meet"
nat_lab_renew alice bob && on alice q2q-tun up bob@server.test --yes >/dev/null || tap_bail "up"
BOB=$(on alice getent ahostsv4 bob.server.test.q2q | awk '{ print $1; exit }')
tap "an MTU of 1500" begins_with 1500 1472
tap "an MTU of 1280" begins_with 1280 1252
tap "an MTU of 9000" begins_with 9000 8972

# A copy by ssh, slow enough to be going on.
lab_sshd bob alice || tap_bail "sshd"
on alice sh -c 'head -c 9000000 /dev/urandom >/root/file'
copy_starts() {
    rm -f "$LAB_DIR/scp.end"
    on bob rm -f /root/file
    {
        on alice timeout 170 scp -q -l "$1" "${LAB_SSH_OPTIONS[@]}" /root/file bob.server.test.q2q:/root/file \
            </dev/null >"$LAB_DIR/scp.log" 2>&1
        echo $? >"$LAB_DIR/scp.end"
    } &
    wait_for 30 on bob test -s /root/file
}
copy_ends() {
    wait_for 170 test -s "$LAB_DIR/scp.end"
    [ "$(cat "$LAB_DIR/scp.end")" = 0 ] || { cat "$LAB_DIR/scp.log"; return 1; }
    [ "$(on alice sha256sum /root/file)" = "$(on bob sha256sum /root/file)" ]
}
follows() {
    narrow "$1" && both_carry "$2" "$3" && ! [ -e "$LAB_DIR/scp.end" ] && device_stays
}
copy_starts 3000
fill 5000 &
START=$SECONDS
tap "a link in the middle shrinks to 1280 bytes under a copy, in silence" follows 1280 20 1252
echo "# after $((SECONDS - START)) s" && START=$SECONDS
tap "and grows again" follows 9000 60 8972
echo "# after $((SECONDS - START)) s"
tap "the copy has survived" copy_ends
# And at the machine itself, which says so: no packet is needed to find that out.
links 9000
copy_starts 8000
fill 1000 &
shrinks_here() {
    on alice ip link set eth0 mtu 1400 && wait_for 30 carries alice bob 1372 && on alice ip link set eth0 mtu 9000 &&
        wait_for 30 carries alice bob 8972 && device_stays
}
tap "the same at the machine's own interface, and back" shrinks_here
tap "that copy has survived too" copy_ends
tap_done
