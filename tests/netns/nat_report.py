#!/usr/bin/python3
"""What NAT traversal may be expected to do, and a table of what it did.

  nat_report.py theory KIND KIND              direct, birthday, prediction, tcp or relay
  nat_report.py table FILE [plain|markdown|pairs|json]
                                              of the lines that contrib/nat-matrix wrote:
                                              markdown is a summary, pairs has all of them

The exit code of "table" is 1 when a pair that theory allows to be direct was
not (of birthday probing one run in a hundred may fail), or a tunnel failed.
"""
import json
import statistics
import sys

# Kinds whose mapping is endpoint-independent, and whose filter lets in what they never sent to.
OPEN = ("public", "easy-eif", "easy-adf")
EASY = ("easy", "easy-open-input", "short", "no-icmp", "double", "dual", "nat64")
HARD = {"hard": "random", "hard-sequential": "sequential", "hard-address": "address",
        "carrier": "random"}
NO_UDP = ("no-udp", "only-443")
WITH_IPV6 = ("v6", "dual", "nat64", "public")
# The order of rows and columns, whatever order the runs had.
ORDER = ("public", "easy-eif", "easy-adf", "easy", "easy-open-input", "short", "no-icmp", "double",
         "hard-sequential", "hard-address", "hard", "carrier", "no-udp", "only-443", "v6", "dual",
         "nat64")
CLASSES = (("direct", "both ends easy, or one open"), ("prediction", "ports in sequence"),
           ("birthday", "ports at random"), ("tcp", "no UDP, and a public peer"),
           ("relay", "nothing direct is possible"))
PAIRS = {"lan": "direct", "neighbours": "relay", "neighbours-hairpin": "direct"}


def theory(a, b):
    if a in PAIRS:
        return PAIRS[a]
    if {a, b} == {"no-udp", "public"}:
        return "tcp"  # directly: one of them can be connected to
    if a in NO_UDP or b in NO_UDP:
        return "relay"
    if a in WITH_IPV6 and b in WITH_IPV6:
        return "direct"
    if "v6" in (a, b):
        return "relay"  # no family in common
    if a not in HARD and b not in HARD:
        return "direct"
    if a in OPEN or b in OPEN:
        return "direct"
    mappings = {HARD[kind] for kind in (a, b) if kind in HARD}
    if mappings == {"sequential"}:
        return "prediction"  # of one side's port, or of both
    if a in HARD and b in HARD:
        return "relay"  # random ports on both sides need some 170000 probes
    return "birthday"


def numbers(runs, key):
    return [r[key] for r in runs if r.get(key) is not None]


def median(runs, key):
    values = numbers(runs, key)
    return statistics.median(values) if values else None


def after_answer(run):
    """From the peer's answer on, which the server brings: what the tunnel itself needs."""
    if run.get("first_ms") is not None and run.get("answer_ms") is not None:
        run["packet_ms"] = run["first_ms"] - run["answer_ms"]
    return run


def judge(runs):
    """One object for all runs of one ordered pair."""
    a, b = runs[0]["a"], runs[0]["b"]
    runs = [after_answer(r) for r in runs]
    expected = theory(a, b)
    direct = [r for r in runs if r.get("direct_ms") is not None]
    works = sum(r["ok"] for r in runs)
    kinds = sorted({r["path"]["kind"] for r in runs if r.get("path")})
    allowed_to_fail = len(runs) // 100 if expected == "birthday" else 0
    missed = expected != "relay" and len(runs) - len(direct) > allowed_to_fail
    return {
        "a": a, "b": b, "expected": expected, "runs": len(runs), "works": works,
        "direct": len(direct), "kinds": kinds, "up_ms": median(runs, "up_ms"),
        "answer_ms": median(runs, "answer_ms"), "packet_ms": median(runs, "packet_ms"),
        "packet_max_ms": max(numbers(runs, "packet_ms"), default=None),
        "first_ms": median(runs, "first_ms"), "direct_ms": median(runs, "direct_ms"),
        "direct_max_ms": max((r["direct_ms"] for r in direct), default=None),
        "packets_a": median(runs, "packets_a"), "packets_b": median(runs, "packets_b"),
        "good": works == len(runs) and not missed,
    }


def cell(j):
    if not j:
        return ""
    if j["works"] < j["runs"]:
        return "FAILED %d/%d" % (j["runs"] - j["works"], j["runs"])
    if not j["direct"]:
        return "relay" if j["good"] else "relay!"
    share = "" if j["direct"] == j["runs"] else " %d/%d" % (j["direct"], j["runs"])
    how = "tcp " if j["expected"] == "tcp" else ""
    return "%s%.0f ms%s%s" % (how, j["direct_ms"], share, "" if j["good"] else "!")


def grid(judged, columns, rows, markdown):
    names = [["from \\ to"] + columns] + [
        [a] + [cell(judged.get((a, b))) for b in columns] for a in rows]
    if markdown:
        names.insert(1, ["---"] * len(names[0]))
        return "\n".join("| " + " | ".join(row) + " |" for row in names)
    widths = [max(len(row[i]) for row in names) for i in range(len(names[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in names)


def details(judged, markdown):
    """answer and direct: since `up`; first packet: answered through the tunnel, since answer."""
    head = ["pair", "theory", "path", "direct", "answer", "first packet", "at most", "direct",
            "at most", "packets of nat"]
    rows = [head]
    for j in judged.values():
        def number(key, unit=" ms"):
            return "-" if j[key] is None else "%.0f%s" % (j[key], unit)
        rows.append([
            j["a"] if j["a"] == j["b"] and j["a"] in PAIRS else "%s > %s" % (j["a"], j["b"]),
            j["expected"], ", ".join(j["kinds"]) or "none", "%d/%d" % (j["direct"], j["runs"]),
            number("answer_ms"), number("packet_ms"), number("packet_max_ms"), number("direct_ms"),
            number("direct_max_ms"),
            "%s + %s" % (number("packets_a", ""), number("packets_b", ""))])
    if markdown:
        rows.insert(1, ["---"] * len(head))
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else None


def milliseconds(value):
    return "-" if value is None else "%.0f ms" % value


def summary(pairs):
    """One row for what theory says: all runs of all pairs of that kind."""
    rows = [["theory", "", "pairs", "runs", "work", "direct", "first packet: median", "95 %",
             "direct: median", "95 %", "at most", "packets of both agents: median", "at most"]]
    for name, words in CLASSES:
        runs = [r for pair, some in pairs.items() if theory(*pair) == name for r in some]
        if not runs:
            continue
        packet, direct = numbers(runs, "packet_ms"), numbers(runs, "direct_ms")
        sent = [(r.get("packets_a") or 0) + (r.get("packets_b") or 0) for r in runs]
        rows.append([
            name, words, str(sum(theory(*pair) == name for pair in pairs)), str(len(runs)),
            str(sum(r["ok"] for r in runs)), str(len(direct)),
            milliseconds(quantile(packet, 0.5)), milliseconds(quantile(packet, 0.95)),
            milliseconds(quantile(direct, 0.5)), milliseconds(quantile(direct, 0.95)),
            milliseconds(max(direct, default=None)), "%d" % quantile(sent, 0.5),
            "%d" % max(sent)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def table(path, form):
    pairs = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            run = json.loads(line)
            pairs.setdefault((run["a"], run["b"]), []).append(run)
    def place(pair):
        return [ORDER.index(kind) if kind in ORDER else len(ORDER) for kind in pair] + list(pair)

    pairs = {pair: pairs[pair] for pair in sorted(pairs, key=place)}
    judged = {pair: judge(runs) for pair, runs in pairs.items()}
    bad = [j for j in judged.values() if not j["good"]]
    if form == "json":
        print(json.dumps({"v": 1, "pairs": list(judged.values())}, indent=1))
        return 1 if bad else 0
    square = [pair for pair in judged if pair[0] not in PAIRS]
    rows = list(dict.fromkeys(a for a, _ in square))
    columns = sorted(dict.fromkeys(b for _, b in square), key=lambda b: place((b, b)))
    if form == "pairs":
        print(details(judged, True))
        return 1 if bad else 0
    if len(rows) > 1 and len(columns) > 1:
        print(grid(judged, columns, rows, form == "markdown") + "\n")
    print(summary(pairs) if form == "markdown" else details(judged, False))
    one_nat = {pair: j for pair, j in judged.items() if pair[0] in PAIRS}
    if form == "markdown" and one_nat:
        print("\n" + details(one_nat, True))
    for j in bad:
        print("\n%s > %s: theory says %s, and it was direct in %d of %d, working in %d" % (
            j["a"], j["b"], j["expected"], j["direct"], j["runs"], j["works"]), end="")
    print()
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1] == "theory":
        print(theory(sys.argv[2], sys.argv[3]))
    else:
        sys.exit(table(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "plain"))
