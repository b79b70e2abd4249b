#!/usr/bin/env bash
# The monitor with a played daemon, in a network namespace: what each process may
# do, and that nothing is left whoever is killed.
cd "$(dirname "$0")/../netns" || exit 99
. ./tap.sh
. ./lab.sh
reason=$(lab_need_root) || tap_skip_all "$reason"
PROGRAM=$abs_top_builddir/tests/unit/played_daemon
[ -x "$abs_top_builddir/tests/unit/.libs/played_daemon" ] && PROGRAM=$abs_top_builddir/tests/unit/.libs/played_daemon
lab_start monitor
LAB_PATH=$PATH
lab_host machine

# play HOW: starts the program, waits for its two links
play() {
    spawn machine "$1.log" env PLAY="$1" "$PROGRAM" --foreground
    wait_for 5 grep -q 'name q2q-bob-2' "$LAB_DIR/$1.log"
}
pids() {
    on machine pgrep -f 'played_daemon --foreground' -r R,S,D
}
nothing_left() {
    ! pids && ! on machine ip -br link | grep q2q-
}
monitor_pid() {
    pids | head -n 1
}
daemon_pid() {
    pids | tail -n 1
}
capabilities() {
    on machine sed -n 's/^CapEff:\t*0*//p' "/proc/$1/status"
}
bounding() {
    on machine sed -n 's/^CapBnd:\t*0*//p' "/proc/$1/status"
}

tap "it makes two links" play plain
tap "with addresses, alias and MTU" says 'mtu 1500' on machine ip link show dev q2q-bob
tap "the alias is the address" says 'alias bob@b.test' on machine ip link show dev q2q-bob
tap "IPv4 point to point" says '100.64.0.1 peer 100.64.0.2/32' on machine ip addr show dev q2q-bob
tap "an IPv6 address" says 'fd71:3271:746e::1/128' on machine ip addr show dev q2q-bob
tap "and an IPv6 route to the peer" says 'dev q2q-bob .*src fd71:3271:746e::1' on machine ip -6 route get fd71:3271:746e::2
tap "and no other address" eval '[ "$(on machine ip -6 -br addr show dev q2q-bob | grep -c fe80)" = 0 ]'
tap "the route to the peer is the link" says 'dev q2q-bob' on machine ip route get 100.64.0.2
tap "the monitor has CAP_NET_ADMIN alone" eval '[ "$(capabilities "$(monitor_pid)")" = 1000 ]'
tap "and a uid of its own" eval 'on machine grep -q "^Uid:.64190.64190.64190.64190" "/proc/$(monitor_pid)/status"'
tap "and can get no other back" eval '[ -z "$(bounding "$(monitor_pid)")" ]'
tap "the daemon has no capability" eval '[ -z "$(capabilities "$(daemon_pid)")" ]'
tap "and can get none" eval '[ -z "$(bounding "$(daemon_pid)")" ]'
tap "it runs as the service user" says '^uid 64188 gid 64188' cat "$LAB_DIR/plain.log"
status_says() {
    [ "$(on machine cat "/proc/$(monitor_pid)/status" "/proc/$(daemon_pid)/status" | grep -cE "$1")" = 2 ]
}
tap "neither can get new privileges" status_says '^NoNewPrivs:.1'
# A build with sanitizers goes without (sandbox.c).
ldd "$PROGRAM" | grep -q libasan || tap "both are under a filter" status_says '^Seccomp:.2'
tap "SIGTERM to the monitor asks the daemon to stop" on machine kill -TERM "$(monitor_pid)"
tap "nothing is left" wait_for 5 nothing_left
tap "the daemon was asked, not killed" says 'asked to stop: 1' cat "$LAB_DIR/plain.log"

play killed
on machine kill -KILL "$(monitor_pid)"
tap "kill -9 of the monitor leaves nothing" wait_for 5 nothing_left
play killed
on machine kill -KILL "$(daemon_pid)"
tap "kill -9 of the daemon leaves nothing" wait_for 5 nothing_left
tap "and is told" says 'killed by signal 9' cat "$LAB_DIR/killed.log"
play nonsense
tap "a request that makes no sense ends both" wait_for 5 nothing_left
play twice
tap "a slot asked for twice ends both" wait_for 5 nothing_left
play forbidden
tap "what a daemon does not need is forbidden" wait_for 5 nothing_left
tap "no packet sockets" says 'packet socket: Operation not permitted' cat "$LAB_DIR/forbidden.log"
tap "no way back to root" says 'setuid: Operation not permitted' cat "$LAB_DIR/forbidden.log"
ldd "$PROGRAM" | grep -q libasan || tap "execve ends it" says 'killed by signal 31' cat "$LAB_DIR/forbidden.log"
tap "the daemon's exit status is the program's" exits_with 7 on machine env PLAY=exit "$PROGRAM" --foreground
tap "without the capabilities it does not start" says 'must be started by root' \
    on machine setpriv --reuid 65534 --clear-groups "$PROGRAM" --foreground
tap "a user that does not exist is named" says 'no user nobody-at-all' on machine "$PROGRAM" --foreground --user nobody-at-all
tap "the daemon will not be root" says 'not run as root' on machine "$PROGRAM" --foreground --user root
tap "a wrong option is a usage error" exits_with 2 on machine "$PROGRAM" --port 70000
on machine sh -c 'printf "[daemon]\nprot = 7\n" >/root/wrong.conf'
tap "a wrong key is told with file and line" says 'wrong.conf:2' on machine "$PROGRAM" --foreground --config /root/wrong.conf
tap_done
