#!/usr/bin/env bash
# Two NATs that cannot be crossed by simple punching: the relay carries the
# tunnel, and carries it whole.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab relay hard hard
tunnel_lab_register
tunnel_lab_up
by_relay() {
    path_kind_is alice relay-tcp || path_kind_is alice relay-udp
}
tap "the tunnel is relayed" by_relay
tap "soon the relay goes by UDP" wait_for 30 path_kind_is alice relay-udp
tap "on both sides" wait_for 30 path_kind_is bob relay-udp
tap "ping" on alice ping -c 3 -i 0.2 -W 2 bob.server.test.q2q
tap "a direct path is refused with the code for it" exits_with 8 on alice q2q-tun wait bob@server.test --direct --timeout 3
lab_sshd bob alice || tap_bail "sshd"
same_file() {
    on alice sh -c 'head -c 10000000 /dev/urandom >/root/file' &&
        on alice scp -q "${LAB_SSH_OPTIONS[@]}" /root/file bob.server.test.q2q:/root/file &&
        [ "$(on alice sha256sum /root/file)" = "$(on bob sha256sum /root/file)" ]
}
tap "scp carries 10 MB whole" same_file
tap "the server counted relayed bytes" on server sh -c "q2q-server --data-dir $LAB_DATA --json status | grep -q relayed"
relayed_by_udp() {
    [ "$(on server q2q-server --data-dir "$LAB_DATA" --json status |
        /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)["counters"]["relayed_udp_bytes"])')" -gt 10000000 ]
}
tap "most of them went by UDP" relayed_by_udp
# Where the kernel has segments, one system call moves several datagrams.
relayed_in_batches() {
    on server q2q-server --data-dir "$LAB_DATA" --json status | /usr/bin/python3 -c '
import json, sys
udp = json.load(sys.stdin)["udp"]
print(udp)
sys.exit((udp["gro"] and udp["receive_calls"] * 2 > udp["received_datagrams"]) or
         (udp["gso"] and udp["send_calls"] * 2 > udp["sent_datagrams"]))'
}
tap "several datagrams a system call" relayed_in_batches

# UDP to the server is blocked on one side in the middle of it all
block_udp() {
    on alice nft -f - <<'NFT'
table inet block {
    chain out { type filter hook output priority 0; meta l4proto udp udp dport 8788 drop; }
}
NFT
}
tap "UDP to the server is blocked" block_udp
tap "the tunnel goes on through TLS" on alice ping -c 20 -i 0.2 -W 2 bob.server.test.q2q
tap "and says so" wait_for 30 path_kind_is alice relay-tcp
tap "scp goes on" same_file
on alice nft delete table inet block
tap "once it is open again, UDP comes back" wait_for 60 path_kind_is alice relay-udp
tap_done
