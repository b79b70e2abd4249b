#!/usr/bin/python3
"""A STUN server that answers what it likes: stun_liar.py ADDRESS PORT OUTSIDE:PORT..., one after the other."""
import itertools
import socket
import struct
import sys

COOKIE = 0x2112A442


def main():
    lies = itertools.cycle(sys.argv[3:])
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((sys.argv[1], int(sys.argv[2])))
    print("ready", flush=True)
    while True:
        data, peer = s.recvfrom(2000)
        if len(data) < 20 or data[:2] != b"\x00\x01":
            continue
        address, _, port = next(lies).partition(":")
        value = struct.pack(">BBHI", 0, 1, int(port) ^ COOKIE >> 16,
                            struct.unpack(">I", socket.inet_aton(address))[0] ^ COOKIE)
        s.sendto(struct.pack(">HHI", 0x0101, 12, COOKIE) + data[8:20] +
                 struct.pack(">HH", 0x20, 8) + value, peer)
        print("said", address, "to", peer[0], flush=True)


main()
