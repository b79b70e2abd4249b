#!/usr/bin/env bash
# The operator disables an account: its connections and all that goes through the server end at once, and its
# direct tunnels soon, whoever wanted them. Enabled again, all is back.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab disable easy easy
tunnel_lab_register
tunnel_lab_up
tap "alice has a direct tunnel to bob, who allows it" wait_for 20 path_kind_is alice direct-udp

user() { # enable|disable HOST
    on server q2q-server --data-dir "$LAB_DATA" user "$1" "$2"
}
online() { # HOST
    on server q2q-server --data-dir "$LAB_DATA" status | grep -q "  $1@server.test "
}
offline() {
    ! online "$1"
}
# Both ends: that of the account may find out by itself alone.
tunnel_is_over() {
    ! peer_state_is alice up && ! peer_state_is bob up
}
silent() {
    ! on alice ping -c 1 -W 1 bob.server.test.q2q
}
back() {
    # Who was refused does not ask again at once, unless its user does.
    on alice q2q-tun up bob@server.test --wait 5 >/dev/null 2>&1
    on bob q2q-tun up alice@server.test --yes --wait 5 >/dev/null 2>&1
    on alice ping -c 1 -W 1 bob.server.test.q2q
}

tap "bob, whom she wants, is disabled" user disable bob
tap "he is offline at once" wait_for 10 offline bob
tap "the tunnel ends" wait_for 40 tunnel_is_over
tap "no packet passes" silent
tap "alice is told why" wait_for 20 says 'has disabled the account bob@server.test' on alice q2q-tun up bob@server.test
tap "bob is not let in" wait_for 30 grep -q 'does not accept the certificate of bob' "$LAB_DIR/bob-q2q-tund.log"
tap "he is enabled again" user enable bob
tap "the tunnel is back" wait_for 90 back
tap "directly" wait_for 30 path_kind_is alice direct-udp
on bob q2q-tun down alice@server.test && on bob q2q-tun allow alice@server.test --yes >/dev/null
tap "as before: bob allows it, alice wants it" wait_for 90 eval 'on alice q2q-tun up bob@server.test --wait 10 && path_kind_is alice direct-udp'

tap "alice, who wants it, is disabled" user disable alice
tap "she is offline at once" wait_for 10 offline alice
tap "the tunnel ends" wait_for 40 tunnel_is_over
tap "she is enabled again" user enable alice
tap "the tunnel is back" wait_for 90 back

# Through the server nothing passes from that moment on.
on alice q2q-tun up bob@server.test --path relay >/dev/null
by_relay() {
    path_kind_is alice relay-udp && on alice ping -c 1 -W 2 bob.server.test.q2q
}
tap "by the relay" wait_for 60 by_relay
tap "alice is disabled" user disable alice
tap "no packet passes" wait_for 10 silent
tap "and the tunnel ends" wait_for 60 tunnel_is_over
tap_done
