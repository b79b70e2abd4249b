#!/usr/bin/env bash
# The configuration, read again by daemons that go on: with one worker (bob) and with two (alice), with a
# tunnel that carries packets meanwhile, whole files and ones with faults. The same for the server.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab reload easy easy
tunnel_lab_register
CONFIG=/etc/q2q-tun/q2q-tun.conf

# configure HOST LINES
configure() {
    on "$1" sh -c "mkdir -p /etc/q2q-tun && printf '$2' >$CONFIG.new && chmod 644 $CONFIG.new && mv $CONFIG.new $CONFIG"
}
log_of() {
    echo "$LAB_DIR/$1-q2q-tund.log"
}
# reload HOST EXPRESSION: SIGHUP to the monitor, which is what a service manager knows; then waits for a
# new line in the log
reload() {
    local before
    before=$(wc -l <"$(log_of "$1")")
    # shellcheck disable=SC2016 # expanded on the host
    on "$1" sh -c 'kill -HUP $(pgrep -o -x q2q-tund)' || return
    wait_for 20 eval "tail -n +$((before + 1)) '$(log_of "$1")' | grep -qE -- '$2'"
}
again='the configuration was read again'

for host in alice bob; do
    lab_daemon_end $host || tap_bail "q2q-tund of $host does not end"
done
configure alice '[daemon]\nworkers = 2\n'
configure bob '[daemon]\n'
lab_daemon_start alice --config $CONFIG || tap_bail "q2q-tund of alice, with a configuration"
lab_daemon_start bob --config $CONFIG || tap_bail "q2q-tund of bob, with a configuration"
wait_for 20 eval '[ "$(grep -c "bob@server.test .* listens" "$LAB_DIR/server-q2q-server.log")" -ge 2 ]'
tunnel_lab_up
tap "the tunnel is up, directly" wait_for 20 path_kind_is alice direct-udp
association() {
    on "$1" sh -c 'cat /sys/class/net/q2q-*/ifindex'
}
alice_before=$(association alice)
bob_before=$(association bob)
spawn alice ping.log ping -i 0.02 -W 5 "$(status_of alice "['peers'][0]['ipv4']")"
ping_pid=$SPAWNED_PID

for host in alice bob; do
    tap "$host: a file that says the same changes nothing" reload $host "$again: nothing changes now"
    others='port = 4242'
    [ $host = alice ] && others='port = 4242\nworkers = 3'
    configure $host "[daemon]\n$others\n[network]\nport-mapping = off\ndscp = copy\nparity = off\n"
    tap "$host: what takes a restart is named" reload $host "needs a restart: port$([ $host = alice ] && echo ', workers')\$"
    tap "$host: the rest holds at once" wait_for 30 says 'port-mapping = off' on $host q2q-tun doctor
    configure $host '[daemon]\nlog-level = loud\n'
    tap "$host: a fault is told with file and line" reload $host 'q2q-tun.conf:2'
    tap "$host: and the one before holds" says 'the one before holds' tail -n 3 "$(log_of $host)"
    configure $host '[daemon]\nlog-level = debug\n'
    tap "$host: nobody can read it" eval "on $host chmod 600 $CONFIG && reload $host 'the one before holds' && on $host chmod 644 $CONFIG"
    tap "$host: the level of the log" reload $host "$again\$"
    tap "$host: holds for what packets cause as well" wait_for 20 grep -q 'pair .* because' "$(log_of $host)"
    configure $host '[network]\nexclude-interface = vmnet*\nstun = 192.0.2.10:8788\nkeepalive-min = 20\n[daemon]\nlog-level = info\n'
    tap "$host: interfaces, STUN servers and keepalives" reload $host "$again\$"
done

# As fast as it goes, while packets flow.
many() {
    local i
    for i in $(seq 20); do
        for host in alice bob; do
            configure $host "[daemon]\nlog-level = $([ $((i % 2)) = 0 ] && echo info || echo debug)\n[network]\ndscp = $([ $((i % 2)) = 0 ] && echo copy || echo clear)\n"
            on $host sh -c 'kill -HUP $(pgrep -o -x q2q-tund)'
        done
        on alice q2q-tun --json status >/dev/null || return
    done
}
tap "many times" many
tap "alice still takes one" reload alice "$again"
tap "bob too" reload bob "$again"
tap "the tunnel was never down" eval '[ "$(association alice) $(association bob)" = "$alice_before $bob_before" ] && peer_state_is alice up && ! grep -q "link up -> " "$(log_of alice)" "$(log_of bob)"'
on alice pkill -INT -x ping
wait $ping_pid 2>/dev/null
tap "and packets passed" packets_passed

# ---- the server

configure server '[server]\nlog-level = info\ncertificate-days = 2\n'
lab_end server q2q-server
lab_server_start server 192.0.2.10:8788 --config $CONFIG || tap_bail "q2q-server with a configuration"
server_log=$LAB_DIR/server-q2q-server.log
hup() {
    # spawn begins a log anew
    local before
    before=$(wc -l <"$server_log")
    on server pkill -HUP -x q2q-server
    wait_for 20 eval "tail -n +$((before + 1)) '$server_log' | grep -qE -- '$1'"
}
configure server '[server]\nregistration = closed\nlog-level = debug\n[limits]\nrelay-bytes-per-second = 2000000\nconnections = 4000\n'
tap "the server reads its own again" hup 'registration is closed'
on core python3 -c 'import socket; socket.create_connection(("192.0.2.10", 8788), 10)'
tap "its log level holds" wait_for 30 grep -q ': connected$' "$server_log"
configure server '[server]\nregistration = opne\n'
tap "a fault is told" hup 'the one before holds'
tap "and it serves on" says 'registration +closed' on server q2q-server --data-dir "$LAB_DATA" status
configure server '[server]\nstun-second-port = no\n'
tap "what takes a restart is named" hup 'needs a restart: stun-second-port$'
clean_log() {
    ! grep -E 'Sanitizer|runtime error|Assertion|signal 11' "$LAB_DIR"/*-q2q-tund.log
}
tap "nobody complains" clean_log
tap_done
