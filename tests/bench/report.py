#!/usr/bin/python3
"""Tables and the JSON file of contrib/bench.

    report.py RESULTS...           tables of what was measured, with the limits
    report.py --json OUT RESULTS...    and all of it as one JSON file
    report.py --cases PATTERN      the cases of the bad-link part, one JSON each a line

RESULTS are files of lines {"part", "case", "tunnel", "round", "values"}, or JSON files
written by --json; several are taken together.
"""
import json
import os
import re
import statistics
import sys

LIMITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "limits.json")
OURS = "q2q-tun"
NO_PEERS = ("none", "null", "null-openssl", "null-ipsec-mb")


def read(paths):
    lines = []
    for path in paths:
        text = open(path).read()
        try:
            whole = json.loads(text)
            lines += whole["results"] if "results" in whole else [whole]
        except ValueError:
            lines += [json.loads(line) for line in text.splitlines() if line.strip()]
    return lines


class Table:
    """The values of each metric of a case, by tunnel."""

    def __init__(self, lines):
        self.values, self.tunnels = {}, []
        for line in lines:
            if line["tunnel"] not in self.tunnels:
                self.tunnels.append(line["tunnel"])
            for metric, value in line["values"].items():
                if isinstance(value, (int, float)):
                    key = line["part"], line["case"], metric, line["tunnel"]
                    self.values.setdefault(key, []).append(value)

    def get(self, part, case, metric, tunnel):
        return self.values.get((part, case, metric, tunnel), [])

    def median(self, part, case, metric, tunnel):
        v = self.get(part, case, metric, tunnel)
        return statistics.median(v) if v else None

    def best_peer(self, part, case, metric, lower):
        peers = [(self.median(part, case, metric, t), t) for t in self.tunnels
                 if t not in NO_PEERS and not t.startswith(OURS)]
        peers = [p for p in peers if p[0] is not None]
        return (min if lower else max)(peers) if peers else (None, None)


def number(x):
    return "%.0f" % x if abs(x) >= 1000 else "%.3g" % x


def spread(v):
    if not v:
        return "-"
    if len(v) == 1:
        return number(v[0])
    return "%s (%s..%s)" % (number(statistics.median(v)), number(min(v)), number(max(v)))


def verdict(table, part, case, metric, limit, lower):
    """One limit of q2q-tun: what it says, and whether it is reached; None without a figure."""
    ours = table.median(part, case, metric, limit.get("tunnel", OURS))
    if ours is None or not ("min" in limit or "max" in limit):
        return None
    name, other = "", 1
    if limit.get("against") == "best":
        other, peer = table.best_peer(part, case, metric, lower)
        name = " x %s" % peer
    elif "against" in limit:
        other, name = table.median(part, case, metric, limit["against"]), " x " + limit["against"]
    elif "of" in limit:
        other, name = table.median(part, limit["of"], metric, OURS), " x \"%s\"" % limit["of"]
    if not other:
        return None
    ratio = ours / other
    good = ratio >= limit["min"] if "min" in limit else ratio <= limit["max"]
    text = "%s%s, limit %s %g%s%s: %s" % (
        number(ratio), name, ">=" if "min" in limit else "<=", limit.get("min", limit.get("max")), name and "",
        ", aim %g" % limit["aim"] if "aim" in limit else "", "reached" if good else "NOT REACHED")
    return {"text": text, "reached": good, "value": ratio, "part": part, "case": case, "metric": metric, **limit}


def rows(limits):
    """(part, case, title, metric, lower, limits) of all that can be shown, in order."""
    for part in ("speed", "small"):
        for m in limits[part]:
            yield part, "", m["title"], m["metric"], m.get("lower", False), m["limits"]
    for c in limits["wan"]:
        for l in c["limits"]:
            yield "wan", c["case"], "%s: %s" % (c["case"], l["metric"]), l["metric"], "max" in l, [l]


def show(table, limits):
    verdicts, part_shown = [], None
    for part, case, title, metric, lower, each in rows(limits):
        tunnels = [t for t in table.tunnels if table.get(part, case, metric, t)]
        if not tunnels:
            continue
        if part != part_shown:
            print("\n== %s: medians (min..max)" % part)
            part_shown = part
        print("\n%s" % title)
        for t in tunnels:
            print("    %-16s %s" % (t, spread(table.get(part, case, metric, t))))
        ours = table.median(part, case, metric, OURS)
        best, peer = table.best_peer(part, case, metric, lower)
        if ours and best:
            print("    q2q-tun / best peer (%s): %s" % (peer, number(ours / best)))
        for limit in each:
            v = verdict(table, part, case, metric, limit, lower)
            if v:
                verdicts.append(v)
                print("    %s: %s" % (limit.get("tunnel", OURS), v["text"]))
    return verdicts


def main():
    args = sys.argv[1:]
    limits = json.load(open(LIMITS))
    if args[:1] == ["--cases"]:
        for c in limits["wan"]:
            if re.search(args[1] if len(args) > 1 else "", c["case"]):
                print(json.dumps(c))
        return
    out = None
    if args[:1] == ["--json"]:
        out, args = args[1], args[2:]
    lines = read(args)
    verdicts = show(Table(lines), limits)
    if verdicts:
        print("\n%d of %d limits reached" % (sum(v["reached"] for v in verdicts), len(verdicts)))
    if out:
        with open(out, "w") as f:
            json.dump({"results": lines, "limits": verdicts}, f, indent=1)
            f.write("\n")


main()
