#!/usr/bin/env bash
# What goes wrong for people, and what they are told: passwords, unknown users,
# peers that are not allowed, keys that changed.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab trust
tunnel_lab_register

on alice sh -c 'echo wrong >/root/wrong'
tap "a wrong password is refused" exits_with 4 on alice q2q-tun authorize alice@server.test --password-file /root/wrong
tap "and called that" says 'password' on alice q2q-tun authorize alice@server.test --password-file /root/wrong
tap "registering without an invitation says that one is needed" \
    says 'invit' on alice q2q-tun register carol@server.test --password-file /root/password
tap "registering a name that exists is refused" \
    says 'alice@server.test|exists|taken' on bob q2q-tun register alice@server.test --password-file /root/password --invite nonsense
tap "an unknown user is not found" exits_with 3 on alice q2q-tun up nobody@server.test --yes
tap "and called by name" says 'nobody@server.test' on alice q2q-tun up nobody@server.test --yes
tap "a domain without a server is said to be unreachable" says 'nowhere.test' on alice q2q-tun up bob@nowhere.test --yes
tap "what is not an address is a usage error or not found" says 'address' on alice q2q-tun up 'no address' --yes
tap "a peer that does not allow us denies" exits_with 4 on alice q2q-tun up bob@server.test --yes
tap "and the message says what he has to type" says 'allow alice@server.test' on alice q2q-tun up bob@server.test --yes
tunnel_lab_up
tap "the tunnel is up" peer_state_is alice up
tap "deny cuts it" on bob q2q-tun deny alice@server.test
not_up() {
    ! peer_state_is alice up
}
tap "at once" wait_for 12 not_up
tap "bob allows again" on bob q2q-tun allow alice@server.test --yes
tap "and the tunnel is back" on alice q2q-tun up bob@server.test --yes

# Bob's machine is replaced: a new key for the same address.
on alice q2q-tun down bob@server.test >/dev/null
lab_daemon_end bob || tap_bail "the end of bob's q2q-tund"
on bob sh -c 'rm /var/lib/q2q-tun/identities/*'
lab_daemon_start bob || tap_bail "q2q-tund of bob"
bob_listens() {
    grep -c 'bob@server.test .* listens' "$LAB_DIR/server-q2q-server.log"
}
listened=$(bob_listens)
on bob q2q-tun authorize bob@server.test --password-file /root/password --yes >/dev/null || tap_bail "authorize again"
wait_for 40 eval '[ "$(bob_listens)" -gt "$listened" ]' # a moment later
tap "a peer's changed key stops the connection" exits_with 7 on alice q2q-tun up bob@server.test
tap "the message names the command that accepts it" says 'peers pin bob@server.test SHA256:' on alice q2q-tun up bob@server.test
fingerprint=$(on bob q2q-tun identity | grep -oE 'SHA256:[A-Za-z0-9+/]+')
tap "which works" on alice q2q-tun peers pin bob@server.test "$fingerprint"
tap "and then the tunnel comes up" on alice q2q-tun up bob@server.test
tap "over which packets go" on alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q

# The server loses its data and is made anew: another key for the domain.
lab_end server q2q-server
on server mv "$LAB_DATA" "$LAB_DATA.lost"
tap "a server without its data refuses to run" says 'init' on server q2q-server --data-dir "$LAB_DATA" run
on server q2q-server --data-dir "$LAB_DATA" init server.test >/dev/null
lab_server_start server 192.0.2.10:8788
tap "a server's changed key is a trust failure" \
    exits_with 7 on alice q2q-tun authorize alice@server.test --password-file /root/password
tap "which names both fingerprints and the file" \
    says 'known-domains.*SHA256:|SHA256:.*known-domains' on alice sh -c 'q2q-tun authorize alice@server.test --password-file /root/password 2>&1 | tr "\n" " "'
tap "without --yes and without a terminal, a new server is not trusted" \
    exits_with 7 on bob sh -c 'q2q-tun authorize bob@server.test --password-file /root/password </dev/null'
tap_done
