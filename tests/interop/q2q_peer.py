#!/usr/bin/python3
"""A Q2Q peer on Twisted's AMP: client and server, StartTLS included.

It speaks the protocol as the original does (argument names, who sends what
when, certificates made by the same Twisted classes), so that what talks to it
talks to the original. Everything is kept in a State: keys, certificates, pins.

As a module: register(), authorize(), listen(), inbound(), who_am_i() and Server;
each of the functions takes host and port and returns a Deferred. As a program:

  q2q_peer.py [--state DIR] [--kind rsa|p256] --host H --port P register alice@example.com PASSWORD
                                                                authorize alice@example.com PASSWORD
                                                                listen alice@example.com PROTOCOL
                                                                inbound alice@example.com bob@example.org PROTOCOL
                                                                who-am-i
  q2q_peer.py [--state DIR] [--kind rsa|p256] serve example.com [--port P]
"""

import argparse
import os
import struct
import sys
import time
import zlib

from OpenSSL import crypto
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import defer, endpoints, error, protocol, reactor, ssl, task
from twisted.protocols import amp
from twisted.python import failure

IDENTITY_ADMIN = b"identity-admin"


# ---- certificates, as the original makes them -------------------------------------------

def make_key(kind):
    """An RSA key as the original has, or a P-256 one as ours have."""
    if kind == "rsa":
        return ssl.KeyPair.generate(size=2048)
    return ssl.KeyPair(crypto.PKey.from_cryptography_key(ec.generate_private_key(ec.SECP256R1())))


def sign_name(issuer_key, issuer_dn, key, common_name, serial=1):
    """A version 1 certificate, as the original signs them."""
    request = key.requestObject(ssl.DN(CN=common_name))
    certificate = issuer_key.signRequestObject(issuer_dn, request, serial)
    return ssl.PrivateCertificate.fromCertificateAndKeyPair(certificate, key)


def self_signed(kind, common_name, serial=1):
    key = make_key(kind)
    return sign_name(key, ssl.DN(CN=common_name), key, common_name, serial)


def load_certificate(der):
    return ssl.Certificate.load(der)


def common_name(dn):
    value = dn.CN
    return value.decode() if isinstance(value, bytes) else value


class State:
    """Pins, own certificates: in memory, and in a directory if one is given."""

    def __init__(self, directory=None, kind="rsa"):
        self.directory = directory
        self.kind = kind
        self.pins = {}
        self.own = {}
        if directory:
            for part, into, load in (("public", self.pins, ssl.Certificate.loadPEM),
                                     ("private", self.own, ssl.PrivateCertificate.loadPEM)):
                path = os.path.join(directory, part)
                os.makedirs(path, exist_ok=True)
                for name in os.listdir(path):
                    with open(os.path.join(path, name), "rb") as file:
                        into[name[:-len(".pem")]] = load(file.read())

    def _save(self, part, name, pem):
        if self.directory:
            path = os.path.join(self.directory, part, name + ".pem")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(pem)

    def pin(self, domain, certificate):
        if common_name(certificate.getSubject()) != domain:
            raise ValueError("the certificate is not of %s" % domain)
        self.pins[domain] = certificate
        self._save("public", domain, certificate.dumpPEM())

    def keep(self, name, certificate):
        self.own[name] = certificate
        self._save("private", name, certificate.dumpPEM())


# ---- commands ---------------------------------------------------------------------------------

class NotFound(Exception):
    pass


class VerifyError(Exception):
    pass


class NoSuchUser(Exception):
    pass


class BadCertificateRequest(Exception):
    pass


class NoSuchConnection(Exception):
    pass


class NotAllowed(Exception):
    pass


class WrongPassword(Exception):
    """Declared by nobody, so it goes out as UNKNOWN and ends the connection."""


class SourceIP(amp.Command):
    commandName = b"source-ip"
    arguments = []
    response = [(b"ip", amp.String())]


class Identify(amp.Command):
    commandName = b"identify"
    arguments = [(b"subject", amp.Unicode())]
    response = [(b"certificate", amp.String())]


class Secure(amp.StartTLS):
    commandName = b"secure"
    arguments = [(b"From", amp.Unicode(optional=True)), (b"to", amp.Unicode()),
                 (b"authorize", amp.Boolean())]


class Sign(amp.Command):
    commandName = b"sign"
    arguments = [(b"certificate_request", amp.String()), (b"password", amp.String())]
    response = [(b"certificate", amp.String())]
    errors = {NoSuchUser: b"NoSuchUser", BadCertificateRequest: b"BadCertificateRequest"}


class Listen(amp.Command):
    commandName = b"listen"
    arguments = [(b"From", amp.Unicode()), (b"protocols", amp.ListOf(amp.String())),
                 (b"description", amp.Unicode())]
    response = []


class Inbound(amp.Command):
    commandName = b"inbound"
    arguments = [(b"From", amp.Unicode()), (b"to", amp.Unicode()), (b"protocol", amp.String()),
                 (b"udp_source", amp.String(optional=True))]
    response = [(b"listeners", amp.AmpList([
        (b"id", amp.String()),
        (b"certificate", amp.String(optional=True)),
        (b"methods", amp.ListOf(amp.String())),
        (b"expires", amp.String()),
        (b"description", amp.Unicode())]))]
    errors = {NotFound: b"NotFound"}
    fatalErrors = {VerifyError: b"VerifyError"}


class Virtual(amp.Command):
    commandName = b"virtual"
    arguments = [(b"id", amp.Integer())]
    response = []


class Write(amp.Command):
    commandName = b"write"
    arguments = [(b"id", amp.Integer()), (b"body", amp.String())]
    requiresAnswer = False


class Close(amp.Command):
    commandName = b"close"
    arguments = [(b"id", amp.Integer())]
    response = []


class Choke(amp.Command):
    commandName = b"Choke"
    arguments = [(b"id", amp.Integer())]
    requiresAnswer = False


class Unchoke(amp.Command):
    commandName = b"Unchoke"
    arguments = [(b"id", amp.Integer())]
    requiresAnswer = False


class RetrieveConnection(amp.Command):
    commandName = b"Retrieve-Connection"
    arguments = [(b"identifier", amp.String())]
    response = []
    fatalErrors = {NoSuchConnection: b"NoSuchConnection"}


class AddUser(amp.Command):
    commandName = b"add_user"
    arguments = [(b"name", amp.String()), (b"password", amp.String())]
    response = []
    errors = {NotAllowed: b"NotAllowed"}


# ---- virtual transports -----------------------------------------------------------------------------

class Stream:
    """One virtual transport: a transport for a protocol on this side."""

    disconnecting = False

    def __init__(self, connection, number):
        self.connection = connection
        self.number = number
        self.protocol = None
        self.closed = False
        self.choked = False

    def write(self, data):
        if not self.closed:
            self.connection.callRemote(Write, id=self.number, body=data)

    def writeSequence(self, pieces):
        self.write(b"".join(pieces))

    def getPeer(self):
        return self.connection.transport.getPeer()

    def getHost(self):
        return self.connection.transport.getHost()

    def loseConnection(self):
        if self.closed:
            return
        self.closed = True
        self.connection.callRemote(Close, id=self.number).addBoth(
            lambda _: self.connection.streams.pop(self.number, None))
        self.ended()

    abortConnection = loseConnection

    def ended(self):
        self.closed = True
        inner, self.protocol = self.protocol, None
        if inner is not None:
            reactor.callLater(0, inner.connectionLost, failure.Failure(error.ConnectionDone()))


class Switch(amp.AMP):
    """AMP with Retrieve-Connection, up to the switch to the inner protocol."""

    def __init__(self, stream, retrieve=None):
        super().__init__()
        self.stream = stream
        self.retrieve = retrieve

    @RetrieveConnection.responder
    def retrieve_connection(self, identifier):
        inner = self.retrieve(identifier)
        if inner is None:
            raise NoSuchConnection(identifier)
        reactor.callLater(0, self.switch, inner)
        return {}

    def switch(self, inner):
        self.stream.protocol = inner
        inner.makeConnection(self.stream)


# ---- the control connection ------------------------------------------------------------------------------

class Q2Q(amp.AMP):
    """Both sides of a control connection; `server` is None on a client."""

    def __init__(self, state, server=None):
        super().__init__()
        self.book = state
        self.server = server
        self.streams = {}
        self.last_stream = 0
        self.authorized = False
        self.from_address = ""
        self.lost = defer.Deferred()
        self.answer_inbound = None
        self.inner_for = {}
        self.n_inbound = 0

    def connectionLost(self, reason):
        super().connectionLost(reason)
        for stream in list(self.streams.values()):
            stream.ended()
        if self.server:
            self.server.forget(self)
        lost, self.lost = self.lost, defer.succeed(None)
        if not lost.called:
            lost.callback(None)

    # Either side.

    @SourceIP.responder
    def source_ip(self):
        return {"ip": self.transport.getPeer().host.encode()}

    @Virtual.responder
    def virtual(self, id):
        if (id > 0) != (self.server is not None) or id in self.streams:
            raise KeyError(id)
        stream = self.streams[id] = Stream(self, id)
        stream.protocol = Switch(stream, self.retrieve)
        stream.protocol.makeConnection(stream)
        return {}

    @Write.responder
    def write(self, id, body):
        stream = self.streams[id]
        if stream.protocol is not None:
            stream.protocol.dataReceived(body)
        return {}

    @Close.responder
    def close(self, id):
        self.streams.pop(id).ended()
        return {}

    @Choke.responder
    def choke(self, id):
        self.streams[id].choked = True
        return {}

    @Unchoke.responder
    def unchoke(self, id):
        self.streams[id].choked = False
        return {}

    def retrieve(self, identifier):
        make = self.inner_for.pop(identifier, None)
        return make() if make else None

    @Inbound.responder
    def inbound(self, From, to, protocol, udp_source=None):
        if self.server:
            return self.server.inbound(self, From, to, protocol, udp_source)
        self.n_inbound += 1
        listeners = self.answer_inbound(self, From, to, protocol) if self.answer_inbound else []
        return {"listeners": listeners}

    @defer.inlineCallbacks
    def open_stream(self, identifier, inner):
        """Opens a virtual transport, retrieves, and connects the inner protocol."""
        self.last_stream += 1 if self.server is None else -1
        number = self.last_stream
        stream = self.streams[number] = Stream(self, number)
        yield self.callRemote(Virtual, id=number)
        stream.protocol = Switch(stream)
        stream.protocol.makeConnection(stream)
        yield stream.protocol.callRemote(RetrieveConnection, identifier=identifier)
        stream.protocol.switch(inner)
        defer.returnValue(stream)

    # A server.

    def _need_server(self):
        if self.server is None:
            raise amp.UnhandledCommand("not here")

    @Identify.responder
    def identify(self, subject):
        self._need_server()
        return {"certificate": self.server.certificate_of(subject).dump()}

    @Secure.responder
    @defer.inlineCallbacks
    def secure(self, to, authorize, From=""):
        self._need_server()
        domain = to.split("@")[-1]
        if domain != self.server.domain:
            raise KeyError(domain)
        authorities = None
        if authorize:
            anchor = yield self.server.anchor_for(From.split("@")[-1])
            authorities = [anchor]
        self.authorized = authorize
        self.from_address = From
        defer.returnValue({"tls_localCertificate": self.server.certificate,
                           "tls_verifyAuthorities": authorities})

    @Sign.responder
    def sign(self, certificate_request, password):
        self._need_server()
        return {"certificate": self.server.sign(certificate_request, password)}

    @Listen.responder
    def listen(self, From, protocols, description):
        self._need_server()
        self.verify(From, From)
        self.server.listen(self, From, protocols, description)
        return {}

    def verify(self, ours, theirs):
        """Row 4 of the original's rules, and row 1."""
        domain = theirs.split("@")[-1]
        if not self.authorized:
            if domain == "":
                return
            raise VerifyError("No official negotiation has taken place.")
        peer = self.peerCertificate
        if common_name(peer.getIssuer()) != domain or \
                common_name(peer.getSubject()) not in (theirs, domain):
            raise VerifyError("%s is not %s" % (common_name(peer.getSubject()), theirs))


# ---- client functions ----------------------------------------------------------------------------------------

@defer.inlineCallbacks
def connect(state, host, port):
    factory = protocol.Factory.forProtocol(lambda: Q2Q(state))
    connection = yield endpoints.TCP4ClientEndpoint(reactor, host, port, timeout=10).connect(factory)
    defer.returnValue(connection)


@defer.inlineCallbacks
def secure(connection, from_address, domain, authorize, certificate):
    """identify if the domain is not pinned, then TLS: as the original begins each connection."""
    state = connection.book
    source_ip = connection.callRemote(SourceIP)
    if domain not in state.pins:
        answer = yield connection.callRemote(Identify, subject=domain)
        state.pin(domain, load_certificate(answer["certificate"]))
    yield connection.callRemote(Secure, From=from_address, to=domain, authorize=authorize,
                                tls_localCertificate=certificate,
                                tls_verifyAuthorities=[state.pins[domain]])
    yield source_ip


@defer.inlineCallbacks
def secured(state, host, port, address, domain=None):
    """A connection that proves to be `address`, to the server of `domain`."""
    connection = yield connect(state, host, port)
    yield secure(connection, address, domain or address.split("@")[-1], True, state.own[address])
    defer.returnValue(connection)


@defer.inlineCallbacks
def register(state, host, port, address, password):
    name, domain = address.split("@")
    connection = yield connect(state, host, port)
    try:
        yield secure(connection, "", domain, False, self_signed(state.kind, "@", 218374))
        answer = yield connection.callRemote(Inbound, From="", to="accounts@" + domain,
                                             protocol=IDENTITY_ADMIN, udp_source=b"127.0.0.1:9")
        if not answer["listeners"]:
            raise NotFound("nobody registers users there")
        entry = answer["listeners"][0]
        if b"virtual" not in entry["methods"]:
            raise NotFound("no virtual transport is offered: %r" % entry["methods"])
        inner = amp.AMP()
        stream = yield connection.open_stream(entry["id"], inner)
        yield inner.callRemote(AddUser, name=name.encode(), password=password)
        stream.loseConnection()
        yield connection.callRemote(SourceIP)  # the close went through
        defer.returnValue(entry["methods"])
    finally:
        connection.transport.loseConnection()
        yield connection.lost


@defer.inlineCallbacks
def authorize(state, host, port, address, password):
    domain = address.split("@")[-1]
    connection = yield connect(state, host, port)
    try:
        yield secure(connection, address, domain, False, self_signed(state.kind, address))
        key = make_key(state.kind)
        request = key.requestObject(ssl.DN(CN=address))
        answer = yield connection.callRemote(Sign, certificate_request=request.dump(),
                                             password=password)
        certificate = load_certificate(answer["certificate"])
        if common_name(certificate.getSubject()) != address or \
                common_name(certificate.getIssuer()) != domain:
            raise ValueError("a certificate for somebody else")
        state.keep(address, ssl.PrivateCertificate.fromCertificateAndKeyPair(certificate, key))
    finally:
        connection.transport.loseConnection()
        yield connection.lost


@defer.inlineCallbacks
def listen(state, host, port, address, protocols, description="interop", methods=None,
           udp_port=None, tell=lambda asker: None):
    """The connection; its n_inbound counts. udp_port: ask Who-Am-I there first, as the original."""
    connection = yield secured(state, host, port, address)
    if udp_port:
        yield who_am_i(host, udp_port)

    def answer(_connection, from_address, to, _protocol):
        tell(from_address)
        return [{"id": ("%s->%s:1" % (from_address, to)).encode(),
                 "methods": methods or [b"tcp@127.0.0.1:9", b"virtual"],
                 "expires": time.strftime("%Y-%m-%dT%H:%M:%S",
                                          time.localtime(time.time() + 120)).encode(),
                 "description": description}]

    connection.answer_inbound = answer
    yield connection.callRemote(Listen, From=address, protocols=protocols, description=description)
    defer.returnValue(connection)


@defer.inlineCallbacks
def inbound(state, host, port, from_address, to, name, domain=None):
    connection = yield secured(state, host, port, from_address, domain or to.split("@")[-1])
    try:
        answer = yield connection.callRemote(Inbound, From=from_address, to=to, protocol=name,
                                             udp_source=b"127.0.0.1:9")
        defer.returnValue(answer["listeners"])
    finally:
        connection.transport.loseConnection()
        yield connection.lost


class WhoAmI(protocol.DatagramProtocol):
    """One Who-Am-I over classic PTCP: SYN, question, FIN."""

    SYN, ACK, FIN = 1, 2, 4

    def __init__(self, host, port):
        self.target = (host, port)
        self.done = defer.Deferred()
        self.seq, self.ack = 0, 0
        self.steps = []

    def startProtocol(self):
        self.packet(self.SYN)

    def packet(self, flags, data=b""):
        header = struct.pack(">HHLLLBLH", 8, 1, self.seq, self.ack, 489, flags,
                             zlib.crc32(data) if data else 0, len(data))
        self.transport.write(header + data, self.target)

    def datagramReceived(self, datagram, _address):
        source, to, seq, ack, _window, flags, crc, length = struct.unpack(">HHLLLBLH",
                                                                          datagram[:23])
        data = datagram[23:]
        if (source, to) != (1, 8) or len(data) != length or (data and zlib.crc32(data) != crc):
            self.done.errback(ValueError("a bad packet: %s" % datagram.hex()))
        elif flags == self.SYN | self.ACK:
            self.seq, self.ack = 1, seq + 1
            self.packet(self.ACK)
            box = amp.AmpBox({b"_command": b"Who-Am-I", b"_ask": b"1"}).serialize()
            self.packet(self.ACK, box)
            self.seq += len(box)
        elif data:
            self.answer = amp.parseString(data)[0]
            self.ack += len(data)
            self.packet(self.ACK)
            self.packet(self.FIN)
            self.seq += 1
        elif flags == self.FIN:
            self.ack += 1
            self.packet(self.ACK)
            self.transport.stopListening()
            self.done.callback(self.answer[b"address"].decode())


def who_am_i(host, port, timeout=5):
    asker = WhoAmI(host, port)
    udp = reactor.listenUDP(0, asker, interface="127.0.0.1")
    asker.done.addTimeout(timeout, reactor)
    own_port = udp.getHost().port
    asker.done.addCallback(lambda address: (address, own_port))
    return asker.done


# ---- server ------------------------------------------------------------------------------------------------------

class Admin(amp.AMP):
    def __init__(self, server):
        super().__init__()
        self.server = server

    @AddUser.responder
    def add_user(self, name, password):
        if name in self.server.users:
            raise NotAllowed()
        self.server.users[name] = password
        return {}


class Server(protocol.Factory):
    """The server of one domain, in memory. Foreign domains must be pinned in its state."""

    def __init__(self, state, domain):
        self.state = state
        self.domain = domain
        self.users = {}
        self.listeners = []
        self.connections = []
        self.n_entries = 0
        if domain not in state.own:
            state.keep(domain, self_signed(state.kind, domain))
        self.certificate = state.own[domain]

    def buildProtocol(self, _address):
        connection = Q2Q(self.state, self)
        self.connections.append(connection)
        return connection

    def forget(self, connection):
        self.connections.remove(connection)
        self.listeners = [l for l in self.listeners if l[0] is not connection]

    def certificate_of(self, domain):
        if domain != self.domain:
            raise KeyError(domain)
        return ssl.Certificate(self.certificate.original)

    def anchor_for(self, domain):
        if domain == self.domain:
            return defer.succeed(ssl.Certificate(self.certificate.original))
        return defer.succeed(self.state.pins[domain])

    def sign(self, der, password):
        request = ssl.CertificateRequest.load(der)
        if not request.original.verify(request.original.get_pubkey()):
            raise BadCertificateRequest("signature")
        name = common_name(request.getSubject())
        if not name or name.count("@") != 1:
            raise BadCertificateRequest("Won't sign certificates for other domains")
        user, domain = name.split("@")
        if domain != self.domain:
            raise NoSuchUser(domain)
        if self.users.get(user.encode()) != password:
            raise WrongPassword()
        key = self.certificate.privateKey
        return key.signRequestObject(self.certificate.getSubject(), request, 1).dump()

    def listen(self, connection, address, protocols, description):
        for name in protocols:
            if name.startswith(b"."):
                raise ValueError(name)
            self.listeners.append((connection, address, name, description))

    def local_entry(self, connection, from_address, to):
        self.n_entries += 1
        identifier = ("%s->%s:%d" % (from_address, to, self.n_entries)).encode()
        connection.inner_for[identifier] = lambda: Admin(self)
        return {"id": identifier, "methods": [b"tcp@127.0.0.1:9", b"virtual"],
                "expires": time.strftime("%Y-%m-%dT%H:%M:%S",
                                         time.localtime(time.time() + 120)).encode(),
                "description": "identity admin"}

    @defer.inlineCallbacks
    def inbound(self, connection, from_address, to, name, udp_source):
        connection.verify(to, from_address)
        entries = []
        if to == "accounts@" + self.domain and name == IDENTITY_ADMIN:
            entries.append(self.local_entry(connection, from_address, to))
        for listener, address, protocols, _description in list(self.listeners):
            if (address, protocols) != (to, name):
                continue
            try:
                answer = yield listener.callRemote(Inbound, From=from_address, to=to, protocol=name,
                                                   udp_source=udp_source)
            except Exception:
                listener.transport.loseConnection()
                continue
            for entry in answer["listeners"]:
                entry["methods"] = [m for m in entry["methods"] if m != b"virtual"]
                if entry["methods"]:
                    entry["certificate"] = listener.peerCertificate.dump()
                    entries.append(entry)
        defer.returnValue({"listeners": entries})


def serve(state, domain, port=0, interface="127.0.0.1"):
    """(server, listening port). Stop it with port.stopListening()."""
    server = Server(state, domain)
    return server, reactor.listenTCP(port, server, interface=interface)


# ---- command line ------------------------------------------------------------------------------------------------------

@defer.inlineCallbacks
def run(arguments):
    state = State(arguments.state, arguments.kind)
    rest = arguments.rest
    host, port = arguments.host, arguments.port
    if arguments.command == "register":
        methods = yield register(state, host, port, rest[0], rest[1].encode())
        print("registered", rest[0], b" ".join(methods).decode())
    elif arguments.command == "authorize":
        yield authorize(state, host, port, rest[0], rest[1].encode())
        print("authorized", rest[0])
    elif arguments.command == "listen":
        connection = yield listen(state, host, port, rest[0], [rest[1].encode()],
                                  udp_port=port if arguments.udp else None,
                                  tell=lambda asker: print("inbound from", asker, flush=True))
        print("listening", flush=True)
        yield connection.lost
    elif arguments.command == "inbound":
        entries = yield inbound(state, host, port, rest[0], rest[1], rest[2].encode())
        for entry in entries:
            print(entry["id"].decode(), b" ".join(entry["methods"]).decode(),
                  entry["description"])
        print("entries", len(entries))
    elif arguments.command == "who-am-i":
        answer = yield who_am_i(host, port)
        print(answer[0])
    else:
        _server, listening = serve(state, rest[0], port, host)
        print("port", listening.getHost().port, flush=True)
        yield defer.Deferred()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--state")
    parser.add_argument("--kind", choices=("rsa", "p256"), default="rsa")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--udp", action="store_true", help="Who-Am-I before listen")
    parser.add_argument("command", choices=("register", "authorize", "listen", "inbound",
                                            "who-am-i", "serve"))
    parser.add_argument("rest", nargs="*")
    arguments = parser.parse_args()
    task.react(lambda _reactor: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
