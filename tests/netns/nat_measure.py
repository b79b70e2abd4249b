#!/usr/bin/python3
"""One tunnel from `up` to its direct path: nat_measure.py ADDRESS SECONDS [CONTROL]

Asks for the tunnel, sends pings through it from the moment that it is up until
the first answer, waits up to SECONDS for a direct path, and prints one JSON
object: the path, what it has cost, and milliseconds since `up` was asked for
until the peer's answer came from the server (answer_ms), the tunnel was up
(up_ms), the first ping was answered through it (first_ms), and the path was
direct (direct_ms).
"""
import json
import os
import socket
import struct
import sys
import threading
import time

PING_EVERY_S = 0.005
UP_WAIT_S = 20


class Control:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")

    def ask(self, command, on_progress=None, **args):
        """The final reply: an object with "ok"."""
        question = {"v": 1, "id": 1, "cmd": command, "args": args}
        self.socket.sendall((json.dumps(question) + "\n").encode())
        for line in self.lines:
            reply = json.loads(line)
            if "ok" in reply:
                return reply
            if on_progress and "progress" in reply:
                on_progress(reply["progress"])
        raise SystemExit("the daemon closed the connection")


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff


def ping_until_answered(address, seconds):
    """The clock when the first answer came; None if none did."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    s.settimeout(PING_EVERY_S)
    me = os.getpid() & 0xffff
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        packet = struct.pack("!BBHHH", 8, 0, 0, me, number & 0xffff)
        packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
        try:
            s.sendto(packet, (address, 0))
            answer = s.recvfrom(2048)[0]
            if answer[20] == 0 and answer[24:26] == packet[4:6]:
                return time.monotonic()
        except (TimeoutError, OSError):
            time.sleep(0.001)
    return None


def since(start, then):
    return None if then is None else round((then - start) * 1000, 1)


def main(address, seconds, path):
    control, waiter = Control(path), Control(path)
    found = {}

    def wait_direct():
        reply = waiter.ask("wait", address=address, direct=True, timeout_s=seconds)
        found["direct"] = time.monotonic() if reply["ok"] else None

    def progress(text):
        if "answered" in text:
            found.setdefault("answer", time.monotonic())

    start = time.monotonic()
    reply = control.ask("up", progress, address=address, yes=True, wait_s=UP_WAIT_S)
    up = time.monotonic()
    if not reply["ok"]:
        print(json.dumps({"ok": False, "error": reply.get("error")}))
        return 1
    waiting = threading.Thread(target=wait_direct)
    waiting.start()
    first = ping_until_answered(reply["result"]["peer"]["ipv4"], UP_WAIT_S)
    waiting.join()
    peer = control.ask("status", address=address)["result"]["peers"][0]
    print(json.dumps({
        "ok": first is not None, "answer_ms": since(start, found.get("answer")),
        "up_ms": since(start, up), "first_ms": since(start, first),
        "direct_ms": since(start, found["direct"]), "path": peer["path"],
        "detail": peer.get("detail")}))
    return 0


sys.exit(main(sys.argv[1], int(sys.argv[2]),
              sys.argv[3] if len(sys.argv) > 3 else "/run/q2q-tun/control"))
