#!/usr/bin/python3
"""Pings an address every 10 ms until standard input ends; prints the longest time
between two answers and how many of the pings were never answered:

  roam_gap.py ADDRESS        ->        gap_ms=310 sent=500 lost=12
"""
import os
import select
import socket
import struct
import sys
import time

EVERY_S = 0.01
LINGER_S = 0.5


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff


def echo(number):
    packet = struct.pack("!BBHHHI", 8, 0, 0, os.getpid() & 0xffff, number & 0xffff, number)
    return packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]


def main(address):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sent, answered = 0, set()
    last = due = time.monotonic()
    gap, end = 0.0, None
    while end is None or time.monotonic() < end:
        now = time.monotonic()
        if now >= due and end is None:
            sent += 1
            due = now + EVERY_S
            try:
                s.sendto(echo(sent), (address, 0))
            except OSError:
                pass  # the interface is away
        ready = select.select([s] if end else [s, sys.stdin], [], [], max(0, due - now))[0]
        if sys.stdin in ready and not sys.stdin.readline():
            stopped = time.monotonic()
            end = due = stopped + LINGER_S
        if s not in ready:
            continue
        answer, source = s.recvfrom(2048)
        if source[0] == address and answer[20] == 0 and \
                struct.unpack("!H", answer[24:26])[0] == os.getpid() & 0xffff:
            answered.add(struct.unpack("!I", answer[28:32])[0])
            if end is None:
                gap, last = max(gap, time.monotonic() - last), time.monotonic()
    gap = max(gap, stopped - last)
    print("gap_ms=%.0f sent=%d lost=%d" % (gap * 1000, sent, sent - len(answered)))


main(sys.argv[1])
