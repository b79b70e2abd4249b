#!/usr/bin/env bash
# Two NATs that cannot be crossed by simple punching: the relay carries the
# tunnel, and carries it whole.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab relay hard hard
tunnel_lab_register
tunnel_lab_up
tap "the tunnel is relayed" path_kind_is alice relay-tcp
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
tap_done
