"""libnss_q2q in getent, against a daemon that this file plays. Runs in a mount namespace of its own."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time

import tap
from tap import case

BUILD = os.environ["abs_top_builddir"]
MAGIC, VERSION, TEXT = 0x71326E73, 1, 324
PATH = os.environ["Q2Q_TUN_NAMES"] = os.environ["NSS_TEST_DIRECTORY"] + "/names"
requests = []


def reply(request_id, status=0, four=b"\0" * 4, six=b"\0" * 16, name=b""):
    return struct.pack(">IBBHI4s16s324s", MAGIC, VERSION, status, 0, request_id, four, six, name)


KNOWN4, KNOWN6 = bytes([100, 64, 1, 2]), bytes.fromhex("fd713271746e00000000000000000007")


def answer(request):
    _magic, _version, kind, family, _zero, request_id, address, name = struct.unpack(">IBBBBI16s324s", request)
    name = name.rstrip(b"\0")
    requests.append((kind, family, address, name))
    known = (kind == 1 and name == b"bob.server.test.q2q") or (
        kind == 2 and (address[:4] == KNOWN4 if family == 4 else address == KNOWN6)
    )
    if known:
        return reply(request_id, 0, KNOWN4, KNOWN6, b"bob.server.test.q2q")
    if name == b"four.server.test.q2q":
        return reply(request_id, 0, KNOWN4, b"\0" * 16, name)
    if name == b"liar.server.test.q2q":
        return os.urandom(len(reply(0)))
    if name == b"other.server.test.q2q":
        return reply(request_id + 1, 0, KNOWN4, KNOWN6, name)
    if name == b"short.server.test.q2q":
        return reply(request_id)[:100]
    if name == b"slow.server.test.q2q":
        time.sleep(3)
    return reply(request_id, 1)


def serve(listener):
    while True:
        connection, _ = listener.accept()

        def one(connection=connection):
            data = b""
            while len(data) < 352:
                more = connection.recv(352 - len(data))
                if not more:
                    return
                data += more
            try:
                connection.sendall(answer(data))
            except OSError:
                pass
            connection.close()

        threading.Thread(target=one, daemon=True).start()


def start():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(PATH)
    os.chmod(PATH, 0o666)
    listener.listen(5)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()


def getent(*arguments, user=None):
    begin = time.monotonic()
    environment = dict(os.environ, LD_LIBRARY_PATH=os.environ["NSS_TEST_LIBRARY"])
    done = subprocess.run(["getent", *arguments], capture_output=True, text=True, env=environment, user=user)
    return done.returncode, done.stdout, time.monotonic() - begin


@case("without a daemon a name is not found, at once")
def _():
    code, _text, seconds = getent("hosts", "bob.server.test.q2q")
    assert code == 2 and seconds < 0.15, (code, seconds)


@case("with a daemon both families come back")
def _():
    start()
    code, text, _seconds = getent("ahosts", "bob.server.test.q2q")
    assert code == 0 and "100.64.1.2" in text and "fd71:3271:746e::7" in text, text


@case("also in upper case, and with a dot at the end")
def _():
    for name in ("BOB.server.test.Q2Q", "bob.server.test.q2q."):
        code, text, _seconds = getent("ahostsv4", name)
        assert code == 0 and "100.64.1.2" in text, (name, text)


@case("one family alone")
def _():
    assert getent("ahostsv6", "bob.server.test.q2q")[1].startswith("fd71:3271:746e::7")
    assert getent("ahostsv4", "four.server.test.q2q")[0] == 0
    assert getent("ahostsv6", "four.server.test.q2q")[0] == 2 or "::ffff:" in getent("ahostsv6", "four.server.test.q2q")[1]


@case("addresses go back to the name")
def _():
    for address in ("100.64.1.2", "fd71:3271:746e::7"):
        code, text, _seconds = getent("hosts", address)
        assert code == 0 and "bob.server.test.q2q" in text, (address, text)


@case("names and addresses of others are none of its business")
def _():
    before = len(requests)
    for name in ("www.example.com", "q2q", "xq2q", "192.0.2.1", "2001:db8::1", "fd71:3271:746f::1"):
        getent("hosts", name)
    assert len(requests) == before, requests[before:]


@case("an unknown name is not found")
def _():
    code, _text, seconds = getent("hosts", "nobody.server.test.q2q")
    assert code == 2 and seconds < 0.15, (code, seconds)


@case("a daemon that lies, cuts or answers another question is not believed")
def _():
    for name in ("liar", "short", "other"):
        code, text, _seconds = getent("hosts", name + ".server.test.q2q")
        assert code == 2, (name, text)


@case("a daemon that hangs costs 200 ms a question at the most")
def _():
    code, _text, seconds = getent("hosts", "slow.server.test.q2q")
    assert code == 2 and seconds < 1.0, (code, seconds)  # getent asks for both families


@case("any user may ask")
def _():
    code, text, _seconds = getent("ahostsv4", "bob.server.test.q2q", user=65534)
    assert code == 0 and "100.64.1.2" in text, text


@case("a program that resolves in a loop loses no descriptors")
def _():
    program = (
        "import socket,os\n"
        "n=lambda: len(os.listdir('/proc/self/fd'))\n"
        "socket.getaddrinfo('bob.server.test.q2q',22)\n"
        "before=n()\n"
        "for i in range(200): socket.getaddrinfo('bob.server.test.q2q',22); socket.gethostbyaddr('100.64.1.2')\n"
        "assert n()==before,(before,n())\n"
    )
    environment = dict(os.environ, LD_LIBRARY_PATH=os.environ["NSS_TEST_LIBRARY"])
    subprocess.run(["/usr/bin/python3", "-c", program], check=True, env=environment)


failed = tap.run()
sys.stdout.flush()
os._exit(failed)
