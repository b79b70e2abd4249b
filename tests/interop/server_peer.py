"""A small Q2Q client for the test of q2q-server: blocking, one thread, own AMP codec.

It follows doc/q2q.md and shares no code with the programs under test.
"""

import datetime
import os
import socket
import ssl
import struct
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TIMEOUT_S = 15


class AmpError(Exception):
    def __init__(self, code, description):
        Exception.__init__(self, "%s: %s" % (code, description))
        self.code = code
        self.description = description


class Closed(Exception):
    pass


def text(value):
    return value.encode() if isinstance(value, str) else value


def encode_box(box):
    out = b""
    for key, value in sorted((text(k), text(v)) for k, v in box.items()):
        out += struct.pack("!H", len(key)) + key + struct.pack("!H", len(value)) + value
    return out + b"\0\0"


def decode_box(data):
    """(box, rest), or (None, data) if it is not complete."""
    box, at = {}, 0
    while True:
        if len(data) < at + 2:
            return None, data
        (n,) = struct.unpack_from("!H", data, at)
        if n == 0:
            return box, data[at + 2:]
        if len(data) < at + 2 + n + 2:
            return None, data
        key = data[at + 2:at + 2 + n].decode()
        at += 2 + n
        (n,) = struct.unpack_from("!H", data, at)
        if len(data) < at + 2 + n:
            return None, data
        box[key] = data[at + 2:at + 2 + n]
        at += 2 + n


def decode_boxes(data):
    boxes = []
    while data:
        box, rest = decode_box(data)
        if box is None:
            raise ValueError("cut box")
        boxes.append(box)
        data = rest
    return boxes


def encode_list(items):
    return b"".join(struct.pack("!H", len(text(i))) + text(i) for i in items)


def decode_list(data):
    items = []
    while data:
        (n,) = struct.unpack_from("!H", data)
        items.append(data[2:2 + n])
        data = data[2 + n:]
    return items


def name(cn):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


class Identity:
    """A key with its certificate, in a file as Python's ssl wants it."""

    def __init__(self, address):
        self.address = address
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.der = None

    def request(self, cn=None):
        csr = x509.CertificateSigningRequestBuilder().subject_name(name(cn or self.address))
        return csr.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def self_signed(self):
        now = datetime.datetime.utcnow()
        cert = (x509.CertificateBuilder().subject_name(name(self.address))
                .issuer_name(name(self.address)).public_key(self.key.public_key())
                .serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(days=30))
                .sign(self.key, hashes.SHA256()))
        self.der = cert.public_bytes(serialization.Encoding.DER)
        return self

    def load_into(self, context):
        cert = x509.load_der_x509_certificate(self.der)
        with tempfile.NamedTemporaryFile() as f:
            f.write(cert.public_bytes(serialization.Encoding.PEM))
            f.write(self.key.private_bytes(serialization.Encoding.PEM,
                                           serialization.PrivateFormat.PKCS8,
                                           serialization.NoEncryption()))
            f.flush()
            context.load_cert_chain(f.name)


class Peer:
    """One control connection."""

    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), TIMEOUT_S)
        self.data = b""
        self.asks = 0
        self.answers = {}
        self.commands = []  # what the server asked or told, in order
        self.streams = {}
        self.virtuals = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- boxes

    def send(self, box):
        try:
            self.socket.sendall(encode_box(box))
        except OSError as error:
            raise Closed(str(error))

    def tell(self, command, **arguments):
        self.send(dict(self.spell(arguments), _command=command))

    def ask(self, command, **arguments):
        """Sends and returns the number of the question; see wait()."""
        self.asks += 1
        number = "%x" % self.asks
        self.send(dict(self.spell(arguments), _command=command, _ask=number))
        return number

    @staticmethod
    def spell(arguments):
        return {k.replace("__", "-"): v for k, v in arguments.items() if v is not None}

    def call(self, command, **arguments):
        return self.wait(self.ask(command, **arguments))

    def wait(self, number):
        while number not in self.answers:
            self.pump()
        box = self.answers.pop(number)
        if "_error" in box:
            raise AmpError(box["_error_code"].decode(), box["_error_description"].decode())
        return box

    def next_command(self, wanted=None):
        """The next command of the server; answers its keepalives on the way."""
        while True:
            while self.commands:
                box = self.commands.pop(0)
                if wanted is None or box["_command"].decode() == wanted:
                    return box
            self.pump()

    def answer(self, question, **values):
        self.send(dict(self.spell(values), _answer=question["_ask"]))

    def fail(self, question, code):
        self.send({"_error": question["_ask"], "_error_code": code, "_error_description": ""})

    def read(self):
        try:
            data = self.socket.recv(65536)
        except socket.timeout:
            raise AssertionError("the server said nothing for %d s" % TIMEOUT_S)
        except OSError as error:
            raise Closed(str(error))
        if not data:
            raise Closed("end of file")
        self.data += data

    def pump(self):
        box, self.data = decode_box(self.data)
        if box is None:
            self.read()
            return
        if "_answer" in box or "_error" in box:
            self.answers[box.get("_answer", box.get("_error")).decode()] = box
        elif box["_command"] == b"source-ip":
            self.answer(box, ip="127.0.0.1")
        elif box["_command"] == b"write":
            self.streams[int(box["id"])] += box["body"]
        else:
            self.commands.append(box)

    def is_closed(self):
        """Waits for the server to close; anything else it says is ignored."""
        try:
            while True:
                self.pump()
        except Closed:
            return True

    # ---- what a client does

    def identify(self, domain):
        return self.call("identify", subject=domain)["certificate"]

    def secure(self, anchor, to, sender="", identity=None, authorize=False):
        self.call("secure", From=sender, to=to, authorize="True" if authorize else "False")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(anchor))
        if identity:
            identity.load_into(context)
        try:
            self.socket = context.wrap_socket(self.socket)
        except OSError as error:
            raise Closed(str(error))
        return self

    def sign(self, identity, password, q2q_tun=True, cn=None):
        return self.call("sign", certificate_request=identity.request(cn), password=password,
                         q2q__tun="1" if q2q_tun else None)["certificate"]

    def listen(self, address, *protocols):
        self.call("listen", From=address, protocols=encode_list(protocols), description="test")

    def listeners(self, box):
        return decode_boxes(box["listeners"])

    def inbound(self, sender, to, protocol, **more):
        return self.call("inbound", From=sender, to=to, protocol=protocol, **more)

    def virtual(self, identifier):
        """Opens a virtual transport and retrieves the connection; its id."""
        self.virtuals += 1
        stream = self.virtuals
        self.streams[stream] = b""
        self.call("virtual", id=str(stream))
        self.inner(stream, {"_command": "Retrieve-Connection", "_ask": "1",
                            "identifier": identifier})
        return stream

    def inner(self, stream, box):
        """One question inside a virtual transport."""
        self.tell("write", id=str(stream), body=encode_box(box))
        while True:
            answer, rest = decode_box(self.streams[stream])
            if answer is not None:
                self.streams[stream] = rest
                break
            self.pump()
        if "_error" in answer:
            raise AmpError(answer["_error_code"].decode(), answer["_error_description"].decode())
        return answer

    def register(self, domain, account, password, invite=None):
        entries = self.listeners(self.inbound("", "accounts@" + domain, "identity-admin"))
        assert len(entries) == 1, entries
        assert b"virtual" in decode_list(entries[0]["methods"])
        stream = self.virtual(entries[0]["id"])
        box = {"_command": "add_user", "_ask": "2", "name": account, "password": password}
        if invite:
            box["invite"] = invite
        return self.inner(stream, box)


def random_id():
    return os.urandom(16).hex()


def in_two_minutes():
    return (datetime.datetime.utcnow() + datetime.timedelta(seconds=120)).strftime(
        "%Y-%m-%dT%H:%M:%S")
