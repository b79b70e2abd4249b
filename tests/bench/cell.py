#!/usr/bin/python3
"""The figures of one cell, out of what iperf3, ping, the emulator and q2q-tun said.

    cell.py DIRECTORY COUNTERS-BEFORE COUNTERS-AFTER    one line of JSON
    cell.py --print JSON                                the same for people
    cell.py --medians                                   of lines of JSON on standard input
"""
import json
import os
import re
import statistics
import sys


def flow(path):
    """Goodput at the receiver in Mbit/s, per flow too, and the senders' retransmissions."""
    text = open(path).read()
    try:
        said = json.loads(text)
    except ValueError:
        sys.exit("iperf3 said no JSON: " + text[:200])
    if said.get("error"):
        sys.exit("iperf3: " + said["error"])
    each = [s["receiver"]["bits_per_second"] / 1e6 for s in said["end"]["streams"]]
    sender = said["end"].get("sum_sent", {})
    # The second half by itself: what is left when the start is over.
    steady = [i["sum"]["bits_per_second"] / 1e6 for i in said["intervals"]][len(said["intervals"]) // 2:]
    return {
        "seconds": said["end"]["sum_received"]["seconds"],
        "goodput_mbit": said["end"]["sum_received"]["bits_per_second"] / 1e6,
        "sent_second_half_mbit": statistics.mean(steady) if steady else None,
        "flows_mbit": each,
        "jain": sum(each) ** 2 / (len(each) * sum(x * x for x in each)) if any(each) else 0,
        "inner_retransmits": sender.get("retransmits"),
    }


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def ping(path):
    text = open(path).read()
    times = [float(t) for t in re.findall(r"time=([0-9.]+) ms", text)]
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    sent, received = (int(counts[1]), int(counts[2])) if counts else (0, 0)
    # The last may still be on its way when ping ends.
    return {
        "ping_median_ms": statistics.median(times) if times else None,
        "ping_p95_ms": quantile(times, 0.95),
        "ping_max_ms": max(times, default=None),
        "ping_lost_percent": max(0, 100 * (sent - 1 - received) / (sent - 1)) if sent > 1 else None,
    }


def difference(before, after):
    """What was counted in between; what is no counter stays as it is."""
    return {k: difference(before.get(k, {}), v) if isinstance(v, dict) else
            v - before.get(k, 0) if isinstance(v, int) and not isinstance(v, bool) else v
            for k, v in after.items()}


def peer(directory, name):
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        return None
    peers = json.load(open(path)).get("peers", [])
    return peers[0] if peers else None


def beside(path, goodput_mbit):
    """What ran beside the flow: figures of its own, or another flow."""
    said = json.load(open(path)) if os.path.exists(path) and os.path.getsize(path) else {}
    if "end" not in said:
        return {k: v for k, v in said.items() if k not in ("sent", "received")}
    other = said["end"]["sum_received"]["bits_per_second"] / 1e6
    total = other + goodput_mbit
    return {"other_mbit": other, "total_mbit": total,
            "other_share": other / total if total else 0,
            "smaller_share": min(other, goodput_mbit) / total if total else 0}


def cell(directory, before, after):
    result = flow(os.path.join(directory, "flow.json"))
    result.update(ping(os.path.join(directory, "ping.log")))
    link = difference(json.loads(before), json.loads(after))
    for d in ("ab", "ba"):
        for k in ("queue_max_ms", "late_max_ms", "queue_max_bytes"):
            link[d][k] = json.loads(after)[d][k]
    result["link"] = link
    result["link_use_mbit"] = link["ab"]["out_bytes"] * 8 / result.pop("seconds") / 1e6
    result.update(beside(os.path.join(directory, "beside.json"), result["goodput_mbit"]))
    for host in ("alice", "bob"):
        status = peer(directory, "status." + host)
        if status:
            result["q2q_" + host] = status
    return result


def show(r):
    def ms(key):
        return "-" if r[key] is None else "%.1f" % r[key]
    print("%.1f Mbit/s (second half sent %.1f)   ping %s ms, p95 %s, max %s, lost %.1f %%   inner retransmissions %s" % (
        r["goodput_mbit"], r["sent_second_half_mbit"] or 0, ms("ping_median_ms"), ms("ping_p95_ms"),
        ms("ping_max_ms"), r["ping_lost_percent"] or 0, r["inner_retransmits"]))
    if len(r["flows_mbit"]) > 1:
        print("  flows %s, Jain %.3f" % (" ".join("%.1f" % f for f in r["flows_mbit"]), r["jain"]))
    for key in ("other_mbit", "other_share", "within_percent", "delay_p99_ms", "key_median_ms", "key_p95_ms"):
        if r.get(key) is not None:
            print("  %s %.3f" % (key, r[key]))
    for d in ("ab", "ba"):
        n = r["link"][d]
        print("  link %s: %d packets, %.1f MB in, %.1f MB out; dropped %d by the queue, %d by chance; queue at most %.1f ms; late at most %.1f ms" % (
            d, n["in_packets"], n["in_bytes"] / 1e6, n["out_bytes"] / 1e6, n["dropped_queue"],
            n["dropped_loss"] + n["dropped_burst"], n["queue_max_ms"], n["late_max_ms"]))
    for host in ("alice", "bob"):
        if "q2q_" + host in r:
            p = r["q2q_" + host]
            numbers = {k: v for k, v in p.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
            path = p.get("path") or {}
            numbers.update({"path." + k: v for k, v in path.items() if isinstance(v, (int, float))})
            print("  q2q-tun at %s: %s %s" % (host, path.get("kind"), " ".join("%s=%s" % i for i in numbers.items())))


def medians(lines):
    all_of = [json.loads(line) for line in lines]
    for key in ("goodput_mbit", "ping_median_ms", "ping_p95_ms"):
        v = [r[key] for r in all_of if r[key] is not None]
        if v:
            print("%-16s median %.1f (%.1f .. %.1f)" % (key, statistics.median(v), min(v), max(v)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--print"]:
        show(json.loads(sys.argv[2]))
    elif sys.argv[1:] == ["--medians"]:
        medians(sys.stdin)
    else:
        print(json.dumps(cell(*sys.argv[1:])))
