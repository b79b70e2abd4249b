#!/usr/bin/python3
"""The real q2q-server and a client that speaks as the original does, on Twisted.

usage: q2q_stock.py Q2Q_SERVER        prints TAP
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from twisted.internet import defer, task
from twisted.protocols import amp
from twisted.python import log

import q2q_peer as q2q

HOST = "127.0.0.1"
DOMAIN = "example.com"
ALICE, BOB = "alice@example.com", "bob@example.com"
PASSWORD = b"correct horse battery"

n_cases = n_failed = 0


def case(name, good):
    global n_cases, n_failed
    n_cases += 1
    n_failed += not good
    print("%s %d - %s" % ("ok" if good else "not ok", n_cases, name), flush=True)


class Server:
    """q2q-server of example.com with open registration, in a directory of its own."""

    def __init__(self, program):
        self.base = tempfile.mkdtemp(prefix="q2q-stock-")
        self.program = [program, "--config", os.path.join(self.base, "config")]
        with open(os.path.join(self.base, "config"), "w") as file:
            file.write("[server]\ndata-dir = %s/data\nlisten = 127.0.0.1:0\nregistration = open\n"
                       % self.base)
        subprocess.run(self.program + ["init", DOMAIN], check=True, stdout=subprocess.DEVNULL)
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = os.path.join(self.base, "notify")
        ready.bind(notify)
        os.chmod(notify, 0o777)
        ready.settimeout(30)
        self.log = open(os.path.join(self.base, "log"), "w+")
        self.process = subprocess.Popen(
            self.program + ["--log-level", "debug", "run"], stdout=self.log, stderr=self.log,
            stdin=subprocess.DEVNULL, env=dict(os.environ, NOTIFY_SOCKET=notify))
        while ready.recv(100) != b"READY=1":
            pass
        ready.close()
        status = json.loads(subprocess.run(self.program + ["status", "--json"], check=True,
                                           capture_output=True, text=True).stdout)
        self.port = int(status["listen"][0].rsplit(":", 1)[1])

    def remove(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.log.seek(0)
        if n_failed or code:
            for line in self.log.read().splitlines():
                print("# " + line)
        self.log.close()
        shutil.rmtree(self.base)
        return code


@defer.inlineCallbacks
def fails_with(deferred, kind):
    try:
        yield deferred
    except kind:
        defer.returnValue(True)
    except Exception as e:
        print("# %s: %s" % (type(e).__name__, e))
    defer.returnValue(False)


@defer.inlineCallbacks
def client(port, kind):
    name = "a stock client (%s): " % kind
    alice, bob = "%s-%s" % (kind, ALICE), "%s-%s" % (kind, BOB)
    state = q2q.State(kind=kind)
    methods = yield q2q.register(state, HOST, port, alice, PASSWORD)
    case(name + "registers, by a virtual transport alone", methods == [b"virtual"])
    yield q2q.register(state, HOST, port, bob, PASSWORD)
    case(name + "cannot register a name twice",
         (yield fails_with(q2q.register(state, HOST, port, alice, PASSWORD), q2q.NotAllowed)))
    case(name + "with a wrong password gets UNKNOWN",
         (yield fails_with(q2q.authorize(state, HOST, port, alice, b"wrong password"),
                           amp.UnknownRemoteError)))
    yield q2q.authorize(state, HOST, port, alice, PASSWORD)
    yield q2q.authorize(state, HOST, port, bob, PASSWORD)
    case(name + "is authorized", alice in state.own and bob in state.own)
    address, own_port = yield q2q.who_am_i(HOST, port)
    case(name + "learns its address over classic PTCP", address == "127.0.0.1:%d" % own_port)
    listener = yield q2q.listen(state, HOST, port, alice, [b"file-transfer"], udp_port=port,
                                description="simple file transfer test")
    case(name + "listens", True)
    entries = yield q2q.inbound(state, HOST, port, bob, alice, b"file-transfer")
    case(name + "is found by another", listener.n_inbound == 1 and len(entries) == 1)
    case(name + "its virtual method is left out, its description kept",
         entries[0]["methods"] == [b"tcp@127.0.0.1:9"] and
         entries[0]["description"] == "simple file transfer test")
    case(name + "its certificate is added",
         entries[0]["certificate"] == state.own[alice].dump())
    entries = yield q2q.inbound(state, HOST, port, bob, alice, b"another-protocol")
    case(name + "is not found for another protocol", entries == [])
    listener.transport.loseConnection()
    yield listener.lost
    entries = yield q2q.inbound(state, HOST, port, bob, alice, b"file-transfer")
    case(name + "is gone when its connection is", entries == [])
    connection = yield q2q.secured(state, HOST, port, bob)
    refused = connection.callRemote(q2q.Inbound, From=alice, to=alice, protocol=b"file-transfer")
    case(name + "cannot speak for another", (yield fails_with(refused, q2q.VerifyError)))
    yield connection.lost


@defer.inlineCallbacks
def run(program):
    server = Server(program)
    try:
        for kind in ("rsa", "p256"):
            yield client(server.port, kind)
    finally:
        case("the server ends in order", server.remove() == 0)
    print("1..%d" % n_cases)


if __name__ == "__main__":
    log.startLogging(open(os.devnull, "w"), setStdout=False)
    task.react(lambda _reactor: run(sys.argv[1]))
