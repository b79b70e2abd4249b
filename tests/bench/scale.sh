#!/usr/bin/env bash
# Many peers on one daemon: tests/bench/load plays their far ends in one process.
#
#   tests/bench/scale.sh [--peers N] [--workers N] [--seconds S] [--idle S] [--mbit M] [--json FILE]
#
# Needs root, and abs_top_builddir with tests/netns/root in it (make tests/netns/root.stamp).
# Prints a table, and with --json also one JSON object: set-up time, memory, CPU while idle,
# wake-ups, round trip of one ping, throughput to one peer and to all.
. "$(dirname "$0")/../netns/lab.sh"

peers=1000 seconds=5 json='' idle=20 mbit=1000 only=''
while [ $# -gt 0 ]; do
    case $1 in
    --peers) peers=$2 ;;
    --workers) SCALE_WORKERS=$2 ;;
    --seconds) seconds=$2 ;;
    --idle) idle=$2 ;;
    --mbit) mbit=$2 ;;
    --json) json=$2 ;;
    --only) only=$2 ;; # rss: of the idle daemon, in KiB
    *) echo "usage: $0 [--peers N] [--workers N] [--seconds S] [--idle S] [--mbit M] [--json FILE] [--only rss]" >&2; exit 2 ;;
    esac
    shift 2
done
. "$(dirname "$0")/scale_lab.sh"
lab_need_root >&2 || exit 77
load=$abs_top_builddir/tests/bench/load
[ -x "$load" ] || { echo "tests/bench/load is not built" >&2; exit 1; }

mean_ping() { # HOST TARGET
    on "$1" ping -q -c 200 -i 0.005 "$2" | awk -F/ '/^rtt/ { print $5 }'
}

# ticks PID: CPU time in milliseconds (USER_HZ is 100)
cpu_ms() { awk '{ print ($14 + $15) * 10 }' "/proc/$1/stat"; }
# of all its threads
switches() { cat /proc/"$1"/task/*/status | awk '/^voluntary_ctxt/ { n += $2 } END { print n }'; }

[ -n "$only" ] || rss_one=$(bash "$0" --peers 1 --only rss | tail -n 1) || exit 1
scale_lab scale "$peers" || exit 1
scale_wait_up "$peers" 180 || { echo "not all came up" >&2; scale_report >&2; exit 1; }
setup_us=$(scale_report | scale_field setup_us)
sleep 6
rss_up=$(scale_rss)
if [ "$only" = rss ]; then
    echo "$rss_up"
    exit 0
fi
cpu=$(cpu_ms "$SCALE_DAEMON") before=$(switches "$SCALE_DAEMON")
sleep "$idle"
cpu=$(($(cpu_ms "$SCALE_DAEMON") - cpu)) wake=$(($(switches "$SCALE_DAEMON") - before))
ping_ms=$(mean_ping dut "$(scale_vip 0)")

scale_report >/dev/null
on dut "$load" blast 0 1 "$seconds" "$mbit"
one=$(scale_report)
sleep 1
scale_report >/dev/null
cpu_load=$(cpu_ms "$SCALE_DAEMON")
on dut "$load" blast 0 "$peers" "$seconds" "$mbit"
all=$(scale_report)
cpu_load=$(($(cpu_ms "$SCALE_DAEMON") - cpu_load))
rss_load=$(scale_rss)
sleep 8
rss_after=$(scale_rss)

report() {
    python3 - "$@" <<'PY'
import json, sys
peers, setup_us, rss0, rss1, idle, cpu, wake, ping, one, alls, rss2, rss3, seconds, cpu2 = sys.argv[1:15]
one, alls = json.loads(one), json.loads(alls)
mbit = lambda r: round(r["bytes"] * 8 / float(seconds) / 1e6)
out = {
    "peers": int(peers), "setup_s": round(int(setup_us) / 1e6, 2),
    "setup_per_s": round(int(peers) / max(int(setup_us) / 1e6, 1e-6)),
    "rss_one_kib": int(rss0), "rss_up_kib": int(rss1),
    "kib_per_peer": round((int(rss1) - int(rss0)) / max(int(peers) - 1, 1), 1),
    "idle_cpu_percent": round(float(cpu) / 10 / float(idle), 2),
    "idle_wakeups_per_s": round(int(wake) / float(idle), 1),
    "ping_ms": float(ping or 0), "one_mbit": mbit(one), "all_mbit": mbit(alls),
    "all_cpu_percent": round(float(cpu2) / 10 / float(seconds)),
    "all_active": alls["active"], "least_bytes": alls["least"], "median_bytes": alls["median"],
    "most_bytes": alls["most"], "rss_load_kib": int(rss2), "rss_after_kib": int(rss3),
}
json.dump(out, sys.stdout)
print()
PY
}
result=$(report "$peers" "$setup_us" "$rss_one" "$rss_up" "$idle" "$cpu" "$wake" "$ping_ms" "$one" "$all" "$rss_load" "$rss_after" "$seconds" "$cpu_load")
python3 -c 'import json,sys
for k, v in json.loads(sys.argv[1]).items(): print(f"{k:20} {v}")' "$result"
if [ -n "$json" ]; then echo "$result" >"$json"; fi
