# shellcheck shell=bash
# A daemon with many peers, and tests/bench/load that plays their far ends. After lab.sh.
#
#   scale_lab NAME PEERS      hosts gen and dut; sets SCALE_LOAD and SCALE_DAEMON (pids)
#   scale_report              one line of JSON of the far ends; counts anew
#   scale_wait_up N SECONDS   until N far ends say that their tunnel is up

SCALE_PORT=8788
SCALE_WORKERS=${SCALE_WORKERS:-1}

scale_lab() {
    local load=$abs_top_builddir/tests/bench/load
    lab_start "$1"
    lab_use_root "$abs_top_builddir/tests/netns/root"
    lab_host gen dut || return
    lab_link gen 10.9.0.1/24 dut 10.9.0.2/24
    spawn gen load.out "$load" serve "$2" "$LAB_DIR/dut/state" 10.9.0.1 $SCALE_PORT
    wait_for 60 grep -q serving "$LAB_DIR/load.out" || { cat "$LAB_DIR/load.out" >&2; return 1; }
    SCALE_LOAD=$(lab_outer_pid gen load)
    chown -R 64188:64188 "$LAB_DIR/dut/state"
    printf '[daemon]\nworkers = %s\n[domain load.test]\nserver = 10.9.0.1:%s\n' "$SCALE_WORKERS" $SCALE_PORT | on dut sh -c 'cat >/root/q2q-tun.conf'
    on dut q2q-tund --foreground --config /root/q2q-tun.conf >>"$LAB_DIR/dut-q2q-tund.log" 2>&1 </dev/null &
    wait_for 60 on dut q2q-tun status || return
    SCALE_DAEMON=$(lab_outer_pid dut q2q-tund | tail -n 1)
}

# lab_outer_pid HOST PROGRAM: as this script's namespace counts, oldest first
lab_outer_pid() {
    pgrep -x --nslist pid --ns "${LAB_PID[$1]}" "$2"
}

scale_report() {
    local n
    n=$(wc -l <"$LAB_DIR/load.out")
    kill -USR1 "$SCALE_LOAD"
    wait_for 10 eval "[ \$(wc -l <'$LAB_DIR/load.out') -gt $n ]"
    tail -n 1 "$LAB_DIR/load.out"
}

scale_field() {
    python3 -c "import json,sys; print(json.load(sys.stdin)['$1'])"
}

scale_is_up() {
    [ "$(scale_report | scale_field up)" -ge "$1" ]
}

scale_wait_up() {
    local start=$SECONDS
    until scale_is_up "$1"; do
        [ $((SECONDS - start)) -ge "$2" ] && return 1
        sleep 0.2
    done
}

scale_rss() {
    awk '/^VmRSS/ { print $2 }' "/proc/$SCALE_DAEMON/status"
}

# scale_vip NUMBER: the IPv4 address of that peer at dut
scale_vip() {
    on dut q2q-tun --json status "p$1@load.test" |
        python3 -c "import json,sys; print(json.load(sys.stdin)['peers'][0]['ipv4'])"
}
