#!/usr/bin/env bash
# The main job: ping, ssh and scp between two machines behind two NATs, first by
# relay and then directly, and what is left when the tunnel goes down.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab tunnel

# shows_hint COMMAND...: says what is wrong and what to do, one line each
shows_hint() {
    local said
    said=$("$@" 2>&1)
    echo "$said"
    [ "$(wc -l <<<"$said")" -eq 2 ] && ! grep -q '?$' <<<"$said"
}
tap "status without an identity says how to get one" says 'register' on alice q2q-tun identity
tap "alice registers" lab_register alice alice@server.test server
tap "bob registers" lab_register bob bob@server.test server
tap "an identity that is not there is refused" exits_with 3 on alice q2q-tun --as x@server.test up bob@server.test
tap "and the peer was not allowed by that" exits_with 3 on alice q2q-tun status bob@server.test
tap "an error and its hint are whole lines" shows_hint on alice q2q-tun down nobody@server.test
tap "output that cannot be written is an error" exits_with 1 on alice sh -c 'q2q-tun status >/dev/full'
tap "bob is not allowed to be reached before he says so" exits_with 4 on alice q2q-tun up bob@server.test --yes --wait 30
tap "bob sees who asked" says 'alice@server.test' on bob q2q-tun requests
tap "bob allows alice" on bob q2q-tun allow alice@server.test --yes
# Bob calls back as soon as he allows her. That his key is not known yet must not turn the next
# --yes into a question.
wait_for 20 says 'not known here yet' on alice q2q-tun status bob@server.test
tap "alice brings the tunnel up" on alice q2q-tun up bob@server.test --yes
tap "bob's name resolves to his virtual address" \
    says "$(status_of alice "['peers'][0]['ipv4']")" on alice getent ahostsv4 bob.server.test.q2q
tap "and back" says 'bob.server.test.q2q' on alice getent hosts "$(status_of alice "['peers'][0]['ipv4']")"
tap "IPv4 ping" on alice ping -c 3 -i 0.2 -W 2 bob.server.test.q2q
tap "IPv6 ping" on alice ping -6 -c 3 -i 0.2 -W 2 bob.server.test.q2q
tap "ping the other way" on bob ping -c 3 -i 0.2 -W 2 alice.server.test.q2q
tap "the path becomes direct" on alice q2q-tun wait bob@server.test --direct --timeout 60
tap "q2q-tun ping says so" says 'direct-udp' on alice q2q-tun ping bob@server.test -c 2 -i 0.2
tap "the interface carries the peer's address" says 'bob@server.test' on alice ip link show dev q2q-bob

same_file() {
    on alice sh -c 'head -c 20000000 /dev/urandom >/root/file' &&
        on alice scp -q "${LAB_SSH_OPTIONS[@]}" /root/file bob.server.test.q2q:/root/file &&
        [ "$(on alice sha256sum /root/file)" = "$(on bob sha256sum /root/file)" ]
}
lab_sshd bob alice || tap_bail "sshd"
tap "ssh by name" says '^bob$' on alice ssh "${LAB_SSH_OPTIONS[@]}" bob.server.test.q2q hostname
tap "scp carries 20 MB whole" same_file

spoofed_source_is_dropped() {
    local before after
    before=$(on bob sh -c 'cat /sys/class/net/q2q-alice/statistics/rx_packets')
    # A foreign source address on alice's side of the tunnel must not come out at bob.
    on alice ip addr add 100.99.99.99/32 dev q2q-bob
    on alice ping -4 -c 3 -i 0.2 -W 1 -I 100.99.99.99 bob.server.test.q2q
    on alice ip addr del 100.99.99.99/32 dev q2q-bob
    after=$(on bob sh -c 'cat /sys/class/net/q2q-alice/statistics/rx_packets')
    # Router solicitations and the like may pass; three echo requests may not.
    echo "rx packets $before -> $after"
    [ $((after - before)) -lt 3 ]
}
tap "a packet with a foreign source does not come out" spoofed_source_is_dropped

tap "status --json has the fields it promises" on alice sh -c 'q2q-tun --json status | python3 -c "
import json,sys
s=json.load(sys.stdin)
assert s[\"v\"]==1
for k in (\"address\",\"ipv4\",\"ipv6\",\"server\",\"connected\"): s[\"self\"][k]
p=s[\"peers\"][0]
for k in (\"address\",\"state\",\"interface\",\"ipv4\",\"ipv6\",\"since\",\"bytes_sent\",\"bytes_received\",\"packets_lost\",\"packets_retransmitted\",\"packets_rebuilt\",\"parity_bytes_sent\"): p[k]
for k in (\"kind\",\"local\",\"remote\",\"rtt_us\"): p[\"path\"][k]
assert p[\"state\"]==\"up\" and p[\"bytes_sent\"]>20000000, p
"'
tap "down" on alice q2q-tun down bob@server.test
no_interface() {
    ! on "$1" ip -br link | grep ^q2q-
}
tap "no interface is left at alice" wait_for 30 no_interface alice
tap "and up again" on alice q2q-tun up bob@server.test
tap "which carries packets" on alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q

# From the relay to the direct path in the middle of a stream of small packets.
upgrade_loses_nothing() {
    local output
    on alice q2q-tun down bob@server.test
    on alice q2q-tun up bob@server.test || return 1
    for _ in $(seq 10); do # the first is enough but where the machine is busy
        output=$(on alice ping -4 -q -c 1500 -i 0.002 -W 5 bob.server.test.q2q)
        echo "$output"
        grep -q '1500 received, 0% packet loss' <<<"$output" && ! grep -q duplicates <<<"$output" || return
        path_kind_is alice direct-udp && return
    done
    return 1
}
tap "moving from the relay to the direct path loses and doubles nothing" upgrade_loses_nothing

# The first answer, counted from the moment that the command is typed.
on alice q2q-tun down bob@server.test >/dev/null
start_ms=$(date +%s%3N)
on alice q2q-tun up bob@server.test >/dev/null && on alice ping -c 1 -W 5 bob.server.test.q2q >/dev/null
echo "# up to first reply: $(($(date +%s%3N) - start_ms)) ms"
tap_done
