#!/usr/bin/python3
"""What a NAT does, seen from behind it (RFC 4787 and RFC 5780 have the terms).

  nat_classify.py serve ADDRESS ADDRESS     answer on two ports of each address
  nat_classify.py classify ADDRESS ADDRESS [LIFETIME_S]
                                            ask them, and print one line of findings
  nat_classify.py meet ADDRESS ADDRESS MINE THEIRS
                                            two of these, each with the other's files, send to
                                            each other's outside, and say what has come

A question is "answer SOURCE" or "send PORT SOURCE"; SOURCE is the number of the
server's socket that the answer comes from, or that a datagram to PORT of the
asking address is sent from. Answers say where the question came from.
"""
import itertools
import os
import select
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PORTS = (3478, 3479)
ANSWER_S = 0.3
TRIES = 3
SAMPLES = 6
MEET_WAIT_S = 20


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(address="", port=0, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((address, port))
    return s


def serve(addresses):
    sockets = [udp(a, p, family_of(a)) for a in addresses for p in PORTS]
    while True:
        for s in select.select(sockets, [], [])[0]:
            text, source = s.recvfrom(512)
            words = text.decode().split()
            if words[0] == "answer":
                answer = "%s %s %d" % (words[2], source[0], source[1])
                sockets[int(words[1])].sendto(answer.encode(), source)
            elif words[0] == "send":
                sockets[int(words[2])].sendto(b"early", (source[0], int(words[1])))
                s.sendto(("%s sent 0" % words[3]).encode(), source)


class Client:
    def __init__(self, addresses):
        self.family = family_of(addresses[0])
        self.servers = [(a, p) for a in addresses for p in PORTS]
        self.n = itertools.count(1)

    def socket(self, port=0):
        return udp("", port, self.family)

    def ask(self, s, to, words, tries=TRIES):
        """The answer's two words; None if there is none."""
        for _ in range(tries):
            number = next(self.n)
            question = "%s %d" % (words, number)
            s.sendto(question.encode(), self.servers[to])
            end = time.monotonic() + ANSWER_S
            while (left := end - time.monotonic()) > 0 and select.select([s], [], [], left)[0]:
                try:
                    answer = s.recv(512).decode().split()
                except OSError:
                    continue
                if answer[0] == str(number):
                    return answer[1], int(answer[2])
        return None

    def mapped(self, s, to, tries=TRIES):
        return self.ask(s, to, "answer %d" % to, tries)

    def mapping(self):
        """Sockets 0 and 1 of the server share an address."""
        s = self.socket()
        seen = [self.mapped(s, 0)]
        if seen[0] is None:
            return "none-passes"
        seen += [self.mapped(s, i) for i in (1, 2, 3)]
        ports = [p[1] for p in seen]
        if len(set(ports)) == 1:
            kind = "independent"
        elif ports[0] == ports[1] and ports[2] == ports[3]:
            kind = "address"
        else:
            kind = "address-and-port"
        if kind == "independent" and seen[0][1] == s.getsockname()[1]:
            kind += "(preserved)"
        return kind

    def filtering(self):
        for source, kind in ((2, "none"), (1, "by-address")):
            s = self.socket()
            if self.mapped(s, 0) is None:
                return "unknown"
            if self.ask(s, 0, "answer %d" % source, 2) is not None:
                return kind
        return "by-port"

    def ports(self):
        """Of one new flow after the other, each to the same server: how do they follow?"""
        s = [self.socket() for _ in range(SAMPLES)]
        taken = [self.mapped(each, 0)[1] for each in s]
        if [each.getsockname()[1] for each in s] == taken:
            return "preserved"
        steps = [b - a for a, b in zip(taken, taken[1:])]
        return "sequential" if all(0 < step < 8 for step in steps) else "random"

    def hairpin(self):
        a, b = self.socket(), self.socket()
        to = self.mapped(a, 0)
        self.mapped(b, 0)
        if to is None:
            return "unknown"
        for _ in range(TRIES):
            b.sendto(b"hairpin", to)
            if select.select([a], [], [], ANSWER_S / 2)[0]:
                return "yes" if a.recvfrom(512)[1][0] == to[0] else "inner-source"
        return "no"

    def poisoned(self):
        """A stranger's datagram came first: is the outside port another one then?"""
        helper, port = self.socket(), 0
        s = self.socket()
        port = s.getsockname()[1]
        if self.ask(helper, 0, "send %d 3" % port) is None:
            return "unknown"
        time.sleep(0.1)
        seen = self.mapped(s, 3, 2)
        return "lost" if seen is None else "no" if seen[1] == port else "yes"

    def lives(self, seconds):
        s = self.socket()
        first = self.mapped(s, 0)
        time.sleep(seconds)
        # From a fresh socket: s itself would renew the mapping.
        helper = self.socket()
        if first is None or self.ask(helper, 0, "send %d 0" % first[1]) is None:
            return "unknown"
        return "yes" if select.select([s], [], [], ANSWER_S)[0] else "no"


def tcp(address, port):
    try:
        socket.create_connection((address, port), timeout=1).close()
        return "yes"
    except ConnectionRefusedError:
        return "yes"
    except OSError:
        return "no"


def ping(address):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    done = subprocess.run(["ping", "-c", "2", "-i", "0.2", "-W", "1", address], check=False, **quiet)
    return "no" if done.returncode else "yes"


def classify(addresses, lifetime_s):
    client = Client(addresses)
    tests = {"tcp443": lambda: tcp(addresses[0], 443), "tcp8788": lambda: tcp(addresses[0], 8788),
             "icmp": lambda: ping(addresses[0])}
    kind = client.mapping()
    ports = "unknown"
    if kind != "none-passes":
        ports = client.ports()  # before the others take ports as well
        tests.update(filtering=client.filtering, hairpin=client.hairpin)
        if kind.startswith("independent"):
            tests.update(poisoned=client.poisoned)
        if lifetime_s:
            tests["lives-%ds" % lifetime_s] = lambda: client.lives(lifetime_s)
    with ThreadPoolExecutor(len(tests)) as pool:
        found = {name: pool.submit(test) for name, test in tests.items()}
    print("mapping=%s ports=%s" % (kind, ports),
          " ".join("%s=%s" % (name, result.result()) for name, result in found.items()))


def meet(addresses, mine, theirs):
    client = Client(addresses)
    s = client.socket()
    outside = client.mapped(s, 0)
    if outside is None:
        return "unknown"
    with open(mine + ".new", "w", encoding="ascii") as file:
        file.write("%s %d" % outside)
    os.rename(mine + ".new", mine)
    end = time.monotonic() + MEET_WAIT_S
    while not os.path.exists(theirs):
        if time.monotonic() > end:
            return "unknown"
        time.sleep(0.05)
    with open(theirs, encoding="ascii") as file:
        address, port = file.read().split()
    came = set()
    # The first ones open the way for the other's; both go on until both must have been heard.
    for _ in range(20):
        s.sendto(b"meet", (address, int(port)))
        while select.select([s], [], [], 0.05)[0]:
            text, source = s.recvfrom(512)
            if text == b"meet":
                came.add("outside" if source == (address, int(port)) else "inside")
    return " ".join(sorted(came)) or "no"


if sys.argv[1] == "serve":
    serve(sys.argv[2:4])
elif sys.argv[1] == "meet":
    print("meets=%s" % meet(sys.argv[2:4], sys.argv[4], sys.argv[5]))
else:
    classify(sys.argv[2:4], int(sys.argv[4]) if len(sys.argv) > 4 else 0)
