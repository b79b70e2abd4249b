#!/usr/bin/env bash
# A NAT that forgets flows soon: how soon is found out while the tunnel rests, and
# the direct path is not lost; what was found is known after a restart.
. "$(dirname "$0")/tunnel_lab.sh"
FORGETS=6
tunnel_lab keepalive independent,timeout=$FORGETS easy
for host in alice bob; do
    on $host sh -c 'mkdir -p /etc/q2q-tun && printf "[network]\nkeepalive-min = 2\nkeepalive-max = 9\n" >/etc/q2q-tun/q2q-tun.conf'
    lab_end $host q2q-tund
    lab_daemon_start $host --log-level=debug || tap_bail "q2q-tund of $host"
done
tunnel_lab_register
tunnel_lab_up
tap "the tunnel is direct" wait_for 30 path_kind_is alice direct-udp

# of HOST FIELD: of its keepalives, as doctor has it
of() {
    on "$1" q2q-tun --json doctor | /usr/bin/python3 -c "
import json, sys
keepalive = json.load(sys.stdin)['network']['ipv4']['keepalive']
print(keepalive['$2'] if keepalive else '')"
}
is_found() {
    [ "$(of "$1" state)" = found ]
}
below() {
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 0 && a < b) }'
}
tap "what the short NAT remembers is found" wait_for 90 is_found alice
tap "and is less than that" below "$(of alice remembered_s)" $FORGETS
tap "but not much" below $((FORGETS - 2)) "$(of alice remembered_s)"
tap "keepalives are nearer together" below "$(of alice interval_s)" "$(of alice remembered_s)"
tap "the other NAT remembers longer" wait_for 60 is_found bob
tap "so keepalives there are as far apart as may be" test "$(of bob interval_s)" = 9.0
never_lost() {
    ! grep -E 'direct.* because challenges|path up -> down' "$LAB_DIR/$1-q2q-tund.log"
}
tap "the path was not lost meanwhile" never_lost alice
tap "not on the other side" never_lost bob
on alice ping -c 1 -W 2 "$(status_of alice "['peers'][0]['ipv4']")" >/dev/null
sleep 12
tap "nor while it rests" never_lost alice
tap "it is direct" path_kind_is alice direct-udp

lab_end alice q2q-tund
lab_daemon_start alice || tap_bail "q2q-tund of alice"
wait_for 20 path_kind_is alice direct-udp
tap "after a restart it is known at once" wait_for 20 is_found alice
tap "and was not looked for again" test "$(of alice tries)" = 0
tap_done
