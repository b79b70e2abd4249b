#!/usr/bin/python3
"""keys.py SECONDS SSH-COMMAND...: the time from a keystroke to its echo, as JSON.

The far end is a terminal that echoes by itself, as a shell's line editor does; each
key waits for the echo of the one before and for a typist's pause.
"""
import json
import os
import random
import select
import statistics
import subprocess
import sys
import time

PAUSE_S = (0.08, 0.25)
LOST_S = 10


def read_until(fd, wanted, limit_s):
    got, end = b"", time.monotonic() + limit_s
    while wanted not in got:
        rest = end - time.monotonic()
        if rest <= 0 or not select.select([fd], [], [], rest)[0]:
            return False
        more = os.read(fd, 4096)
        if not more:
            return False
        got += more
    return True


def main():
    seconds, command = float(sys.argv[1]), sys.argv[2:]
    ssh = subprocess.Popen(command + ["-tt", "stty raw echo; echo ready; exec cat >/dev/null"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    if not read_until(ssh.stdout.fileno(), b"ready", 30):
        sys.exit("keys.py: ssh does not come up")
    pause, echoes, missing = random.Random(1), [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(pause.uniform(*PAUSE_S))
        start = time.monotonic()
        os.write(ssh.stdin.fileno(), b"x")
        if read_until(ssh.stdout.fileno(), b"x", LOST_S):
            echoes.append(1e3 * (time.monotonic() - start))
        else:
            missing += 1
            break
    ssh.kill()
    echoes.sort()
    print(json.dumps({"keys": len(echoes), "keys_missing": missing,
                      "key_median_ms": statistics.median(echoes) if echoes else None,
                      "key_p95_ms": echoes[int(0.95 * len(echoes))] if echoes else None,
                      "key_max_ms": echoes[-1] if echoes else None}))


main()
