#!/usr/bin/env bash
# Daemons with several worker threads: peers on each of them, traffic both ways at once, directly and
# by relays, while addresses change and tunnels come and go; then they end in order.
. "$(dirname "$0")/tunnel_lab.sh"
HERE=$PWD
COPY_BYTES=${WORKERS_COPY_BYTES:-3000000}
PEERS='bob carol dave'

reason=$(lab_need_root) || tap_skip_all "$reason"
# Where all hosts of the lab see it.
conf=$(mktemp /tmp/q2q-workers.XXXXXX)
printf '[daemon]\nworkers = 3\n' >"$conf"
chmod 644 "$conf"
LAB_DAEMON_OPTIONS="--config $conf"
tunnel_lab workers easy easy
lab_host carol dave || tap_bail "hosts"
lab_link core 198.18.1.1/24 carol 198.18.1.2/24 c eth0
lab_link core 198.18.2.1/24 dave 198.18.2.2/24 d eth0
on carol ip route add default via 198.18.1.1
on dave ip route add default via 198.18.2.1
lab_tell_dns() { # HOST...
    local each
    for each in "$@"; do
        on "$each" sh -c "printf 'nameserver 192.0.2.1\noptions timeout:1 attempts:2\n' >/etc/resolv.conf"
    done
}
lab_tell_dns carol dave
lab_daemon_start carol || tap_bail "q2q-tund of carol"
LAB_DAEMON_OPTIONS='' lab_daemon_start dave || tap_bail "q2q-tund of dave" # as most are
rm -f "$conf"

for host in alice $PEERS; do
    lab_register "$host" "$host@server.test" server >/dev/null || tap_bail "register $host"
done
for host in $PEERS; do
    on "$host" q2q-tun allow alice@server.test --yes >/dev/null || tap_bail "allow by $host"
    spawn "$host" "$host-copy.out" "$HERE/workers_copy.py" serve
done

threads_of() {
    on "$1" sh -c 'ls /proc/$(pgrep -n -x q2q-tund)/task | wc -l'
}
# A sanitizer may have a thread of its own.
tap "three workers are two threads more than one" test "$(threads_of alice)" -ge $(($(threads_of dave) + 2))

all_up() {
    local peer
    for peer in $PEERS; do
        on alice q2q-tun up "$peer@server.test" --yes || return
    done
}
tap "all peers come up" all_up

# of_peers EXPRESSION: of each peer p of alice, in the order of PEERS
of_peers() {
    on alice q2q-tun --json status | python3 -c "
import json,sys
of = {p['address'].split('@')[0]: p for p in json.load(sys.stdin)['peers']}
for p in [of[name] for name in '$PEERS'.split()]: print($1)"
}
one_on_each() {
    [ "$(of_peers "p['detail']['worker']" | sort | xargs)" = "0 1 2" ]
}
tap "each worker has one of them" one_on_each
all_direct() {
    [ "$(of_peers "p['path']['kind']" | sort -u)" = direct-udp ]
}
tap "soon all are reached directly" wait_for 20 all_direct
mapfile -t ADDRESSES < <(of_peers "p['ipv4']")

all_answer() {
    local address
    for address in "${ADDRESSES[@]}"; do
        on alice ping -q -c "${1:-3}" -i 0.1 -W 5 "$address" >/dev/null || { echo "$address does not answer"; return 1; }
    done
}
copy_all() {
    on alice "$HERE/workers_copy.py" talk "$COPY_BYTES" "${ADDRESSES[@]}"
}
tap "all answer" all_answer
tap "bytes go both ways to all at once" copy_all

# What is asked while packets flow comes from threads that move packets.
ask_much() {
    local i
    for i in $(seq 10); do
        on alice q2q-tun --json status >/dev/null && on alice q2q-tun --json doctor >/dev/null &&
            on alice q2q-tun ping bob@server.test -c 1 >/dev/null || return
    done
}
copy_and() {
    local copy
    copy_all &
    copy=$!
    "$@" || { wait $copy; return 1; }
    wait $copy
}
tap "and while questions are asked" copy_and ask_much
down_and_up() {
    local i
    for i in 1 2 3; do
        on alice q2q-tun down carol@server.test && on alice q2q-tun up carol@server.test --yes || return
    done >/dev/null
}
copy_others() {
    on alice "$HERE/workers_copy.py" talk "$COPY_BYTES" "${ADDRESSES[0]}" "${ADDRESSES[2]}"
}
others_stay() {
    local copy
    copy_others &
    copy=$!
    down_and_up || { wait $copy; return 1; }
    wait $copy
}
tap "one goes down and up while the others go on" others_stay
tap "and is back" all_answer

move_alice() {
    on alice ip addr flush dev eth0 scope global && on alice ip addr add 10.1.0.77/24 dev eth0 &&
        on alice ip route replace default via 10.1.0.1
}
tap "alice has another address" move_alice
tap "all answer again" wait_for 30 all_answer 1
tap "bytes go both ways to all" copy_all

all_relayed() {
    local peer
    for peer in $PEERS; do
        on alice q2q-tun up "$peer@server.test" --path relay >/dev/null || return
    done
}
path_kinds_are() {
    [ "$(of_peers "p['path']['kind']" | sort -u)" = "$1" ]
}
tap "all by the relay" all_relayed
tap "which goes by UDP soon" wait_for 20 path_kinds_are relay-udp
tap "bytes go both ways to all at once by UDP relays" copy_all
on alice nft -f - <<'NFT'
table inet block {
    chain out { type filter hook output priority 0; meta l4proto udp udp dport 8788 drop; }
}
NFT
udp_is_left() {
    all_answer 1 # silence proves nothing
    path_kinds_are relay-tcp
}
tap "without UDP they go on by TLS" wait_for 20 udp_is_left
tap "bytes go both ways to all at once by TLS" copy_all
on alice nft delete table inet block

tap "one is forgotten" on alice q2q-tun peers forget carol@server.test
tap "bob's daemon ends in order" lab_end bob q2q-tund
tap "alice's too, with tunnels up" lab_end alice q2q-tund
said_so() {
    grep -q 'ending: SIGTERM\|ending: the monitor asks' "$LAB_DIR/alice-q2q-tund.log"
}
tap "and says so" said_so
tap "the others" lab_end carol q2q-tund
clean_log() {
    ! grep -E 'Sanitizer|runtime error|Assertion|signal 11' "$LAB_DIR"/*-q2q-tund.log
}
tap "nobody complains" clean_log
tap_done
