#!/usr/bin/python3
"""Our q2q connection against Twisted's AMP, both ways round, with RSA and P-256 certificates.

usage: q2q_twisted.py AMP_PEER        prints TAP
"""

import os
import sys

from twisted.internet import defer, protocol, task, utils
from twisted.protocols import amp
from twisted.python import log

import q2q_peer as q2q

HOST = "127.0.0.1"
DOMAIN = "example.com"
ALICE, BOB = "alice@example.com", "bob@example.com"

n_cases = 0


def case(name, good):
    global n_cases
    n_cases += 1
    print("%s %d - %s" % ("ok" if good else "not ok", n_cases, name), flush=True)


@defer.inlineCallbacks
def fails_with(deferred, kind, text=None):
    """True if it fails that way: the exception, or the error code of AMP."""
    try:
        yield deferred
    except kind as e:
        defer.returnValue(text is None or text in str(e))
    except Exception as e:
        print("# %s: %s" % (type(e).__name__, e))
        defer.returnValue(False)
    defer.returnValue(False)


class Peer(protocol.ProcessProtocol):
    """`amp_peer serve`, as a process."""

    def __init__(self):
        self.port = defer.Deferred()
        self.ended = defer.Deferred()

    def outReceived(self, data):
        self.port.callback(int(data.split()[1]))

    def errReceived(self, data):
        for line in data.decode(errors="replace").splitlines():
            print("# server: " + line)

    def processEnded(self, reason):
        self.ended.callback(reason)


class Collect(protocol.Protocol):
    """Inner bytes; fires when so many are there."""

    def __init__(self, wanted):
        self.data = b""
        self.wanted = wanted
        self.done = defer.Deferred()

    def dataReceived(self, data):
        self.data += data
        if len(self.data) == self.wanted:
            self.done.callback(self.data)


@defer.inlineCallbacks
def echo(state, port, name):
    """A stream of our server that echoes: opened, used, and its identifier used up."""
    connection = yield q2q.secured(state, HOST, port, ALICE)
    answer = yield connection.callRemote(q2q.Inbound, From=ALICE, to="echo@" + DOMAIN,
                                         protocol=b"echo")
    entry = answer["listeners"][0]
    inner = Collect(50000)
    stream = yield connection.open_stream(entry["id"], inner)
    text = bytes(range(250)) * 200
    stream.write(text[:20000])
    stream.write(text[20000:])
    inner.done.addTimeout(10, connection_reactor())
    got = yield inner.done
    case(name + "bytes go through a virtual transport and back", got == text)
    again = connection.open_stream(entry["id"], Collect(1))
    case(name + "an identifier works once",
         (yield fails_with(again, q2q.NoSuchConnection)))
    stream.loseConnection()
    yield connection.callRemote(q2q.SourceIP)
    case(name + "and the connection survives", True)
    connection.transport.loseConnection()
    yield connection.lost


def connection_reactor():
    from twisted.internet import reactor
    return reactor


@defer.inlineCallbacks
def twisted_client(program, server_kind, client_kind):
    """Python as the client, our q2q_conn as the server."""
    name = "Twisted client (%s), our server (%s): " % (client_kind, server_kind)
    peer = Peer()
    arguments = [program] + (["--rsa"] if server_kind == "rsa" else []) + ["serve", DOMAIN]
    process = connection_reactor().spawnProcess(peer, program, arguments, os.environ)
    try:
        port = yield peer.port
        state = q2q.State(kind=client_kind)
        methods = yield q2q.register(state, HOST, port, ALICE, b"secret")
        case(name + "identify, secure, inbound, virtual, add_user", methods == [b"virtual"])
        yield q2q.register(state, HOST, port, BOB, b"secret")
        case(name + "a name that is taken is NotAllowed",
             (yield fails_with(q2q.register(state, HOST, port, ALICE, b"x"), q2q.NotAllowed)))
        case(name + "a wrong password is UNKNOWN",
             (yield fails_with(q2q.authorize(state, HOST, port, ALICE, b"wrong"),
                               amp.UnknownRemoteError)))
        yield q2q.authorize(state, HOST, port, ALICE, b"secret")
        yield q2q.authorize(state, HOST, port, BOB, b"secret")
        case(name + "sign", state.own[ALICE].getIssuer().CN == DOMAIN.encode())
        address, udp_port = yield q2q.who_am_i(HOST, port)
        case(name + "Who-Am-I over classic PTCP", address == "127.0.0.1:%d" % udp_port)
        listener = yield q2q.listen(state, HOST, port, ALICE, [b"greet"], udp_port=port)
        case(name + "secure with authorization, listen", True)
        entries = yield q2q.inbound(state, HOST, port, BOB, ALICE, b"greet")
        case(name + "an inbound is relayed to the listener and back",
             listener.n_inbound == 1 and len(entries) == 1 and
             entries[0]["methods"] == [b"tcp@127.0.0.1:9"] and
             entries[0]["certificate"] == state.own[ALICE].dump())
        entries = yield q2q.inbound(state, HOST, port, BOB, ALICE, b"nothing")
        case(name + "nobody listening is an empty list", entries == [])
        connection = yield q2q.secured(state, HOST, port, BOB)
        refused = connection.callRemote(q2q.Inbound, From=ALICE, to=ALICE, protocol=b"greet")
        case(name + "a false From is a VerifyError",
             (yield fails_with(refused, q2q.VerifyError)))
        yield connection.lost
        yield echo(state, port, name)
        state.own[ALICE] = q2q.self_signed(client_kind, ALICE)
        case(name + "a certificate that nobody signed is refused",
             (yield fails_with(refused_certificate(state, port), Exception)))
        listener.transport.loseConnection()
        yield listener.lost
    finally:
        process.signalProcess("KILL")
        try:
            yield peer.ended
        except Exception:
            pass


@defer.inlineCallbacks
def refused_certificate(state, port):
    """With TLS 1.3 the refusal shows at the first question."""
    connection = yield q2q.secured(state, HOST, port, ALICE)
    yield connection.callRemote(q2q.SourceIP)


@defer.inlineCallbacks
def twisted_server(program, server_kind, client_kind):
    """Our q2q_conn as the client, Python as the server."""
    name = "our client (%s), Twisted server (%s): " % (client_kind, server_kind)
    _server, listening = q2q.serve(q2q.State(kind=server_kind), DOMAIN)
    arguments = (["--rsa"] if client_kind == "rsa" else []) + \
        ["client", DOMAIN, str(listening.getHost().port)]
    out, err, code = yield utils.getProcessOutputAndValue(program, arguments, os.environ)
    for line in err.decode(errors="replace").splitlines():
        print("# client: " + line)
    for line in out.decode().splitlines():
        good = line.startswith("ok ")
        case(name + line[3 if good else 7:], good)
    case(name + "ends well", code == 0)
    yield listening.stopListening()


@defer.inlineCallbacks
def run(program):
    for kinds in (("p256", "rsa"), ("rsa", "p256"), ("p256", "p256")):
        yield twisted_client(program, *kinds)
        yield twisted_server(program, *kinds)
    print("1..%d" % n_cases)


if __name__ == "__main__":
    # What a server logs about refused clients is part of the test, not of its output.
    log.startLogging(open(os.devnull, "w"), setStdout=False)
    task.react(lambda _reactor: run(sys.argv[1]))
