#!/usr/bin/python3
"""q2q-server, the real program, on loopback with a data directory of its own."""

import base64
import datetime
import hashlib
import json
import os
import pwd
import random
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
import zlib

try:
    import server_peer
    from server_peer import (AmpError, Closed, Identity, Peer, decode_list, encode_box,
                             encode_list, in_two_minutes, random_id)
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
except ImportError as missing:
    print("1..0 # SKIP %s (apt-get install python3-cryptography)" % missing)
    sys.exit(0)

PROGRAM = os.path.join(os.environ.get("abs_top_builddir", "."), "src/server/q2q-server")
DOMAIN = "example.com"
PASSWORD = "correct horse battery"


class Server:
    """A data directory and, when started, the process that serves it."""

    all = []

    def __init__(self, domain=DOMAIN, directory=None, port=0):
        Server.all.append(self)
        self.base = tempfile.mkdtemp(prefix="q2q-server-test-")
        self.dir = directory or os.path.join(self.base, "data")
        self.config = os.path.join(self.base, "config")
        self.log = os.path.join(self.base, "log")
        self.domain = domain
        self.process = None
        self.port = port
        self.configure("")

    def configure(self, extra):
        with open(self.config, "w") as f:
            f.write("[server]\ndata-dir = %s\nlisten = 127.0.0.1:%d\n%s"
                    % (self.dir, self.port, extra))

    def command(self, *arguments, stdin=None):
        return subprocess.run([PROGRAM, "--config", self.config, *arguments], input=stdin,
                              capture_output=True, text=True, timeout=60)

    def ok(self, *arguments, stdin=None):
        result = self.command(*arguments, stdin=stdin)
        assert result.returncode == 0, (arguments, result)
        return result.stdout

    def json(self, *arguments):
        return json.loads(self.ok(*arguments, "--json"))

    def init(self):
        self.ok("init", self.domain)
        return self

    def start(self, *arguments):
        notify = os.path.join(self.base, "notify")
        if os.path.exists(notify):
            os.unlink(notify)
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.bind(notify)
        os.chmod(notify, 0o777)
        ready.settimeout(30)
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "--config", self.config, "--log-level", "debug", *arguments, "run"],
                stderr=log, stdout=log, stdin=subprocess.DEVNULL, env=dict(os.environ, NOTIFY_SOCKET=notify))
        while ready.recv(100) != b"READY=1":
            pass
        ready.close()
        self.port = int(self.json("status")["listen"][0].rsplit(":", 1)[1])
        with Peer(self.port) as peer:
            self.anchor = peer.identify(self.domain)
        return self

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.process = None
        return code

    def remove(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.base)
        Server.all.remove(self)

    # ---- clients

    def anonymous(self):
        return Peer(self.port).secure(self.anchor, self.domain)

    def invite(self, *arguments):
        return self.ok("invite", "create", *arguments).strip()

    def add(self, account):
        self.ok("user", "add", account, "--password-file", "-", stdin=PASSWORD + "\n")
        return self

    def sign(self, account, password=PASSWORD, **more):
        identity = Identity("%s@%s" % (account, self.domain))
        with self.anonymous() as peer:
            identity.der = peer.sign(identity, password, **more)
        return identity

    def login(self, identity, server=None):
        server = server or self
        return Peer(server.port).secure(server.anchor, server.domain, identity.address, identity,
                                        True)

    def user(self, account):
        """A new account, authorized and connected."""
        self.add(account)
        identity = self.sign(account)
        peer = self.login(identity)
        peer.identity = identity
        peer.address = identity.address
        return peer


def fails(code, function, *arguments, **more):
    try:
        function(*arguments, **more)
    except AmpError as error:
        assert error.code == code, error
        return error.description
    raise AssertionError("no error %s" % code)


def refused(function, *arguments, **more):
    """The connection is closed instead of an answer (TLS 1.3 tells on the first read)."""
    try:
        peer = function(*arguments, **more)
        peer.call("source-ip")
    except Closed:
        return True
    raise AssertionError("accepted")


def entry(id, methods=(), **more):
    box = {"id": id, "methods": encode_list(methods), "expires": in_two_minutes(),
           "description": "a listener"}
    box.update({k.replace("__", "-"): v for k, v in more.items()})
    return encode_box(box)


def fingerprint(der):
    spki = x509.load_der_x509_certificate(der).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(spki).digest()).decode().rstrip("=")


# ---- tests: each gets the server that all share, or makes its own --------------------------------


def an_uninitialised_directory_is_refused_with_what_to_do(shared):
    server = Server()
    result = server.command("run")
    assert result.returncode == 3 and "init" in result.stderr, result
    assert not os.path.exists(server.dir)
    server.remove()


def init_prints_the_fingerprint_and_never_overwrites(shared):
    server = Server()
    told = server.json("init", DOMAIN)
    assert told["fingerprint"].startswith("SHA256:"), told
    assert stat.S_IMODE(os.stat(server.dir).st_mode) == 0o700
    for file in os.listdir(server.dir):
        mode = stat.S_IMODE(os.stat(os.path.join(server.dir, file)).st_mode)
        assert mode & 0o077 == 0 or file == "INITIALISED", (file, oct(mode))
    assert server.command("init", DOMAIN).returncode == 1
    assert server.command("init", "not a domain").returncode == 2
    server.start()
    assert fingerprint(server.anchor) == told["fingerprint"]
    cert = x509.load_der_x509_certificate(server.anchor)
    assert cert.subject.rfc4514_string() == "CN=" + DOMAIN
    assert (cert.not_valid_after - cert.not_valid_before).days >= 3649
    server.remove()


def a_lost_database_is_not_replaced(shared):
    server = Server().init()
    for file in os.listdir(server.dir):
        if file.startswith("store.db"):
            os.unlink(os.path.join(server.dir, file))
    result = server.command("run")
    assert result.returncode == 1 and "restore" in result.stderr, result
    assert server.command("init", DOMAIN).returncode == 1
    server.remove()


def a_second_server_on_one_directory_is_refused(shared):
    result = shared.command("run")
    assert result.returncode == 1 and "another" in result.stderr, result


def usage_errors_have_their_exit_code(shared):
    for arguments in ([], ["dance"], ["user"], ["user", "add"], ["init"], ["status", "--uses", "2"],
                      ["--registration", "maybe", "status"], ["--listen", "nowhere", "status"]):
        result = shared.command(*arguments)
        assert result.returncode == 2, (arguments, result)


def a_name_needs_an_invite_that_is_good(shared):
    with shared.anonymous() as peer:
        fails("InviteRequired", peer.register, DOMAIN, "carol", PASSWORD)
        fails("InviteRequired", peer.register, DOMAIN, "carol", PASSWORD, "AAAA-AAAA")
    code = shared.invite("--uses", "1", "--note", "for carol")
    with shared.anonymous() as peer:
        peer.register(DOMAIN, "carol", PASSWORD, code)
    with shared.anonymous() as peer:
        fails("InviteRequired", peer.register, DOMAIN, "dave", PASSWORD, code)
    assert "carol" in [u["name"] for u in shared.json("user", "list")["users"]]
    assert "dave" not in [u["name"] for u in shared.json("user", "list")["users"]]
    shared.sign("carol")


def a_taken_or_bad_name_leaves_the_invite_unused(shared):
    shared.add("taken")
    code = shared.invite()
    with shared.anonymous() as peer:
        fails("NotAllowed", peer.register, DOMAIN, "taken", PASSWORD, code)
        for bad in ("Upper", "a@b", "../x", "", "accounts"):
            fails("NotAllowed", peer.register, DOMAIN, bad, PASSWORD, code)
        fails("UNKNOWN", peer.register, DOMAIN, "x" * 65, PASSWORD, code)
        for weak in ("short", "aaaaaaaaaaaa", "free.name"):
            why = fails("NotAllowed", peer.register, DOMAIN, "free.name", weak, code)
            assert "password" in why
        peer.register(DOMAIN, "free.name", PASSWORD, code)
    shared.sign("taken")


def a_revoked_invite_is_refused(shared):
    made = shared.json("invite", "create")
    shared.ok("invite", "revoke", str(made["id"]))
    with shared.anonymous() as peer:
        fails("InviteRequired", peer.register, DOMAIN, "erin", PASSWORD, made["code"])


def registration_can_be_open_or_closed(shared):
    server = Server().init()
    server.start("--registration", "closed")
    with server.anonymous() as peer:
        fails("RegistrationClosed", peer.register, DOMAIN, "frank", PASSWORD)
    server.stop()
    server.start("--registration", "open")
    with server.anonymous() as peer:
        peer.register(DOMAIN, "frank", PASSWORD)
    server.sign("frank")
    server.remove()


def hangup_reads_the_configuration_again(shared):
    server = Server().init().start()
    with server.anonymous() as peer:
        fails("InviteRequired", peer.register, DOMAIN, "grace", PASSWORD)
        server.configure("registration = open\n")
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if server.json("status")["registration"] == "open":
                break
            time.sleep(0.05)
        peer.register(DOMAIN, "grace", PASSWORD)
    server.remove()


def nothing_is_registered_or_signed_in_clear(shared):
    with Peer(shared.port) as peer:
        assert peer.listeners(peer.inbound("", "accounts@" + DOMAIN, "identity-admin")) == []
        fails("UNKNOWN", peer.sign, Identity("carol@" + DOMAIN), PASSWORD)
        assert peer.is_closed()


def a_password_buys_a_certificate_of_that_name_only(shared):
    shared.add("heidi")
    identity = shared.sign("heidi")
    cert = x509.load_der_x509_certificate(identity.der)
    assert cert.subject.rfc4514_string() == "CN=heidi@" + DOMAIN
    assert cert.issuer.rfc4514_string() == "CN=" + DOMAIN
    assert cert.public_key().public_numbers() == identity.key.public_key().public_numbers()
    with shared.anonymous() as peer:
        fails("BadCertificateRequest", peer.sign, identity, PASSWORD, cn=DOMAIN)
        fails("BadCertificateRequest", peer.sign, identity, PASSWORD, cn="Heidi@" + DOMAIN)
        fails("NoSuchUser", peer.sign, identity, PASSWORD, cn="heidi@elsewhere.test")
        fails("BadCertificateRequest", peer.call, "sign", certificate_request=b"junk",
              password=PASSWORD)
    shown = shared.json("user", "show", "heidi")
    assert [c["fingerprint"] for c in shown["certificates"]] == [fingerprint(identity.der)]


def wrong_passwords_and_unknown_users_look_the_same(shared):
    shared.add("ivan")
    with shared.anonymous() as peer:
        wrong = fails("WrongPassword", peer.sign, Identity("ivan@" + DOMAIN), "not the password")
        unknown = fails("WrongPassword", peer.sign, Identity("nobody@" + DOMAIN), PASSWORD)
        assert wrong == unknown
        peer.call("source-ip")  # the connection goes on
    with shared.anonymous() as peer:
        fails("UNKNOWN", peer.sign, Identity("ivan@" + DOMAIN), "not the password", q2q_tun=False)
        assert peer.is_closed()


def guessing_has_to_wait_and_others_have_not(shared):
    shared.add("judy")
    shared.add("other")
    with shared.anonymous() as peer:
        for _ in range(20):
            try:
                peer.sign(Identity("judy@" + DOMAIN), "a wrong guess")
            except AmpError as error:
                if error.code == "TooManyAttempts":
                    break
                assert error.code == "WrongPassword", error
        else:
            raise AssertionError("20 guesses in a row")
        fails("TooManyAttempts", peer.sign, Identity("judy@" + DOMAIN), PASSWORD)
    shared.sign("other")


def only_the_owner_listens(shared):
    with shared.user("kim") as peer:
        peer.listen(peer.address, "q2q-tun", "file-transfer")
        online = shared.json("status")["online"]
        assert {"address": peer.address, "protocol": "q2q-tun", "listeners": 1} in online
        fails("UNKNOWN", peer.listen, "somebody@" + DOMAIN, "q2q-tun")
        assert peer.is_closed()
    with shared.anonymous() as peer:
        fails("UNKNOWN", peer.listen, "kim@" + DOMAIN, "q2q-tun")
    for _ in range(100):
        if "kim@" + DOMAIN not in [o["address"] for o in shared.json("status")["online"]]:
            return
        time.sleep(0.05)
    raise AssertionError("still online")


def an_inbound_reaches_the_listener_and_comes_back_made_safe(shared):
    with shared.user("leo") as leo, shared.user("mia") as mia:
        leo.listen(leo.address, "file-transfer")
        ask = mia.ask("inbound", From=mia.address, to=leo.address, protocol="file-transfer",
                      udp_source="127.0.0.1:4000")
        got = leo.next_command("inbound")
        assert got["From"] == mia.address.encode() and got["to"] == leo.address.encode()
        assert got["udp_source"] == b"127.0.0.1:4000"
        assert got["q2q-tun-certificate"] == mia.identity.der
        leo.answer(got, listeners=entry("x->y:1", ["tcp@192.0.2.1:5", "virtual", "teleport@here",
                                                   "ptcp@192.0.2.1:6"], certificate=b"forged") +
                   entry("x->y:2", ["virtual"]))
        entries = mia.listeners(mia.wait(ask))
        assert len(entries) == 1, entries
        assert entries[0]["id"] == b"x->y:1"
        assert decode_list(entries[0]["methods"]) == [b"tcp@192.0.2.1:5", b"ptcp@192.0.2.1:6"]
        assert entries[0]["certificate"] == leo.identity.der
        assert entries[0]["description"] == b"a listener"
        # Datagrams go to who asks, nowhere else.
        ask = mia.ask("inbound", From=mia.address, to=leo.address, protocol="file-transfer",
                      udp_source="192.0.2.99:4000")
        got = leo.next_command("inbound")
        assert "udp_source" not in got
        leo.answer(got, listeners=b"")
        assert mia.listeners(mia.wait(ask)) == []


def a_forged_sender_is_refused_and_disconnected(shared):
    with shared.user("nina") as nina:
        fails("VerifyError", nina.inbound, "mia@" + DOMAIN, "leo@" + DOMAIN, "q2q-tun")
        assert nina.is_closed()
    with shared.login(nina.identity) as nina:
        fails("VerifyError", nina.inbound, "x@elsewhere.test", "leo@" + DOMAIN, "q2q-tun")


def an_empty_answer_says_why(shared):
    with shared.user("olaf") as olaf, shared.user("pia") as pia:
        def status(to):
            box = olaf.inbound(olaf.address, to, "q2q-tun", q2q__tun="1")
            assert olaf.listeners(box) == []
            return box.get("q2q-tun-status")
        assert status("nobody@" + DOMAIN) == b"unknown"
        assert status(pia.address) == b"offline"
        pia.listen(pia.address, "q2q-tun")
        for said, told in ((b"refused", b"refused"), (b"busy", b"busy"), (b"offline", b"offline"),
                           (b"\x1b[2J", b"refused")):
            ask = olaf.ask("inbound", From=olaf.address, to=pia.address, protocol="q2q-tun",
                           q2q__tun="1")
            pia.answer(pia.next_command("inbound"), listeners=b"", q2q__tun__status=said)
            assert olaf.wait(ask)["q2q-tun-status"] == told
    with shared.anonymous() as peer:  # strangers learn nothing about who exists
        box = peer.inbound("", "pia@" + DOMAIN, "q2q-tun", q2q__tun="1")
        assert "q2q-tun-status" not in box


def a_silent_listener_costs_five_seconds_and_an_error_costs_nobody(shared):
    with shared.user("quinn") as quinn, shared.user("rosa") as rosa:
        rosa.listen(rosa.address, "slow")
        started = time.monotonic()
        box = quinn.inbound(quinn.address, rosa.address, "slow")
        assert quinn.listeners(box) == []
        assert 4 < time.monotonic() - started < 9
        rosa.next_command("inbound")  # too late, and it stays connected
        ask = quinn.ask("inbound", From=quinn.address, to=rosa.address, protocol="slow")
        rosa.fail(rosa.next_command("inbound"), "WHATEVER")
        assert quinn.listeners(quinn.wait(ask)) == []
        rosa.call("source-ip")


def every_listener_of_an_address_is_asked(shared):
    with shared.user("sara") as one, shared.login(one.identity) as two, \
            shared.user("tom") as tom:
        one.listen(one.address, "both")
        two.listen(one.address, "both")
        ask = tom.ask("inbound", From=tom.address, to=one.address, protocol="both")
        two.answer(two.next_command("inbound"), listeners=entry("two", ["tcp@192.0.2.2:2"]))
        one.answer(one.next_command("inbound"), listeners=entry("one", ["tcp@192.0.2.1:1"]))
        assert sorted(e["id"] for e in tom.listeners(tom.wait(ask))) == [b"one", b"two"]
        # Asking for one's own address reaches the other machine, not oneself.
        ask = one.ask("inbound", From=one.address, to=one.address, protocol="both")
        two.answer(two.next_command("inbound"), listeners=entry("two", ["tcp@192.0.2.2:2"]))
        assert [e["id"] for e in one.listeners(one.wait(ask))] == [b"two"]


def meet(requester, listener, protocol="q2q-tun"):
    """A rendezvous of two connections; its id."""
    rendezvous = random_id()
    ask = requester.ask("inbound", From=requester.address, to=listener.address, protocol=protocol,
                        q2q__tun="1", q2q__tun__request=random_id())
    got = listener.next_command("inbound")
    assert got["q2q-tun"] == b"1" and len(got["q2q-tun-request"]) == 32
    listener.answer(got, listeners=entry(rendezvous, q2q__tun__offer=b"sealed"))
    entries = requester.listeners(requester.wait(ask))
    assert len(entries) == 1 and entries[0]["q2q-tun-offer"] == b"sealed", entries
    assert entries[0]["id"] == rendezvous.encode()
    assert entries[0]["certificate"] == listener.identity.der
    return rendezvous


def a_rendezvous_passes_signals_and_data_both_ways_until_one_leaves(shared):
    with shared.user("uma") as uma, shared.user("vera") as vera, shared.user("walt") as walt:
        vera.listen(vera.address, "q2q-tun")
        rendezvous = meet(uma, vera)
        before = shared.json("status")
        assert before["rendezvous"] >= 1
        uma.tell("q2q-tun-signal", id=rendezvous, body=b"offer \0 of uma")
        got = vera.next_command("q2q-tun-signal")
        assert got["body"] == b"offer \0 of uma" and got["id"] == rendezvous.encode()
        vera.tell("q2q-tun-signal", id=rendezvous, body=b"candidate")
        assert uma.next_command("q2q-tun-signal")["body"] == b"candidate"
        data = os.urandom(50000)
        uma.tell("q2q-tun-relay", id=rendezvous, body=data)
        assert vera.next_command("q2q-tun-relay")["body"] == data
        vera.tell("q2q-tun-relay", id=rendezvous, body=b"back")
        assert uma.next_command("q2q-tun-relay")["body"] == b"back"
        assert shared.json("status")["relayed_bytes"] >= before["relayed_bytes"] + 50004
        # A third party that knows the id can do nothing with it.
        walt.tell("q2q-tun-signal", id=rendezvous, body=b"mallory")
        walt.tell("q2q-tun-gone", id=rendezvous)
        walt.call("source-ip")
        uma.tell("q2q-tun-signal", id=rendezvous, body=b"still here")
        assert vera.next_command("q2q-tun-signal")["body"] == b"still here"
        second = meet(uma, vera)
        uma.tell("q2q-tun-gone", id=second)
        assert vera.next_command("q2q-tun-gone")["id"] == second.encode()
        vera.close()
        assert uma.next_command("q2q-tun-gone")["id"] == rendezvous.encode()
        uma.tell("q2q-tun-signal", id=rendezvous, body=b"nobody")
        uma.call("source-ip")


def a_rendezvous_id_is_used_once_and_stock_requesters_see_no_offers(shared):
    with shared.user("xena") as xena, shared.user("yuri") as yuri:
        yuri.listen(yuri.address, "q2q-tun")
        rendezvous = meet(xena, yuri)
        for offered in (rendezvous, "not an id"):
            ask = xena.ask("inbound", From=xena.address, to=yuri.address, protocol="q2q-tun",
                           q2q__tun="1")
            yuri.answer(yuri.next_command("inbound"),
                        listeners=entry(offered, q2q__tun__offer=b"sealed"))
            assert xena.listeners(xena.wait(ask)) == []
        ask = xena.ask("inbound", From=xena.address, to=yuri.address, protocol="q2q-tun")
        yuri.answer(yuri.next_command("inbound"),
                    listeners=entry(random_id(), q2q__tun__offer=b"sealed"))
        assert xena.listeners(xena.wait(ask)) == []


def a_receiver_that_does_not_read_costs_the_server_little(shared):
    with shared.user("zack") as zack, shared.user("abel") as abel:
        abel.listen(abel.address, "q2q-tun")
        rendezvous = meet(zack, abel)
        before = memory_bytes(shared)
        block = bytes(50000)
        for _ in range(600):  # 30 MB, and abel reads nothing
            zack.tell("q2q-tun-relay", id=rendezvous, body=block)
        zack.call("source-ip")
        if not is_sanitized(shared):  # which keep freed memory on purpose
            assert memory_bytes(shared) - before < 8 << 20, (before, memory_bytes(shared))
        counters = shared.json("status")["counters"]
        assert counters["relay_dropped_full"] + counters["limited"] > 0, counters


def memory_bytes(server):
    with open("/proc/%d/statm" % server.process.pid) as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def is_sanitized(server):
    with open("/proc/%d/maps" % server.process.pid) as f:
        return "libasan" in f.read()


def bind_udp_reaches_the_listener_from_there(shared):
    with shared.user("bert") as bert, shared.user("cleo") as cleo:
        bert.listen(bert.address, "file-transfer")
        more = dict(protocol="file-transfer", q2qsrc=bert.address, q2qdst=cleo.address)
        ask = cleo.ask("bind-udp", udpsrc="127.0.0.1:7", udpdst="127.0.0.1:9", **more)
        got = bert.next_command("bind-udp")
        assert got["udpdst"] == b"127.0.0.1:9" and got["q2qdst"] == cleo.address.encode()
        bert.answer(got)
        cleo.wait(ask)
        fails("ConnectionError", cleo.call, "bind-udp", udpsrc="192.0.2.1:7",
              udpdst="127.0.0.1:9", **more)
        fails("ConnectionError", cleo.call, "bind-udp", udpsrc="127.0.0.1:7",
              udpdst="192.0.2.1:9", **more)
        cleo.call("source-ip")


def a_disabled_account_is_out_at_once_and_may_come_back(shared):
    with shared.user("dora") as dora:
        dora.listen(dora.address, "q2q-tun")
        shared.ok("user", "disable", "dora")
        assert dora.is_closed()
    refused(shared.login, dora.identity)
    with shared.user("otto") as otto:
        box = otto.inbound(otto.address, dora.address, "q2q-tun", q2q__tun="1")
        assert box["q2q-tun-status"] == b"disabled", box
    fails("WrongPassword", shared.sign, "dora")
    shared.ok("user", "enable", "dora")
    shared.login(dora.identity).call("source-ip")


def a_removed_account_is_out_for_good_even_if_the_name_comes_back(shared):
    with shared.user("emil") as emil:
        shared.ok("user", "remove", "emil@" + DOMAIN)
        assert emil.is_closed()
    refused(shared.login, emil.identity)
    shared.add("emil")
    refused(shared.login, emil.identity)
    shared.login(shared.sign("emil")).call("source-ip")
    assert shared.command("user", "show", "nobody-at-all").returncode == 3


def revoked_machines_are_out_and_the_account_authorizes_again(shared):
    with shared.user("ines") as ines, shared.login(shared.sign("ines")) as second:
        shared.ok("user", "revoke", "ines")
        assert ines.is_closed() and second.is_closed()
    refused(shared.login, ines.identity)
    with shared.anonymous() as peer:  # not the same key again
        fails("BadCertificateRequest", peer.sign, ines.identity, PASSWORD)
    shared.login(shared.sign("ines")).call("source-ip")
    assert all(c["revoked"] for c in shared.json("user", "show", "ines")["certificates"][:2])


def ends(der):
    naive = x509.load_der_x509_certificate(der).not_valid_after
    return naive.replace(tzinfo=datetime.timezone.utc).timestamp()


def renewed(peer, identity, cn=None):
    return peer.call("q2q-tun-renew", certificate_request=identity.request(cn))["certificate"]


def a_good_certificate_gets_a_successor_without_the_password(shared):
    with shared.user("rita") as rita:
        time.sleep(1.1)  # dates are whole seconds
        der = renewed(rita, rita.identity)
        assert ends(der) > ends(rita.identity.der)
        assert x509.load_der_x509_certificate(der).public_key().public_numbers() == \
            rita.identity.key.public_key().public_numbers()
        rita.identity.der = der
        shared.login(rita.identity).call("source-ip")
        # It is logged like those for a password.
        assert len(shared.json("user", "show", "rita")["certificates"]) == 2
        # Not for another key, another name, or what makes no sense.
        fails("BadCertificateRequest", renewed, rita, Identity(rita.address))
        fails("BadCertificateRequest", renewed, rita, rita.identity, "leo@" + DOMAIN)
        fails("BadCertificateRequest", rita.call, "q2q-tun-renew", certificate_request="junk")
        rita.call("source-ip")
        # Nor for ever.
        fails("TooManyAttempts", lambda: [renewed(rita, rita.identity) for _ in range(40)])
    with shared.anonymous() as nobody:
        fails("NotAllowed", renewed, nobody, rita.identity)
    with Peer(shared.port) as clear:
        clear.ask("q2q-tun-renew", certificate_request=rita.identity.request())
        assert clear.is_closed()


def no_successor_for_who_may_not_be_here_any_more(shared):
    server = Server().init().start()
    # Behind the server's back, which would end the connection at once.
    store = sqlite3.connect(os.path.join(server.dir, "store.db"), isolation_level=None)
    with server.user("sven") as sven:
        store.execute("UPDATE user SET disabled = 1 WHERE name = 'sven'")
        assert "disabled" in fails("NotAllowed", renewed, sven, sven.identity)
        store.execute("UPDATE user SET disabled = 0 WHERE name = 'sven'")
        renewed(sven, sven.identity)
        store.execute("UPDATE cert SET revoked = 1 WHERE address = ?", (sven.address,))
        assert "revoked" in fails("NotAllowed", renewed, sven, sven.identity)
    store.close()
    server.stop()
    server.configure("certificate-lifetime = 10s\n")
    server.start()
    # Ten seconds later it has expired: the connection is ended, and no other is let in.
    with server.user("tara") as tara:
        assert tara.is_closed()
        assert time.time() >= ends(tara.identity.der)
    refused(server.login, tara.identity)
    server.stop()
    server.configure("certificate-renewal = no\n")
    server.start()
    with server.user("uwe") as uwe:
        assert "password" in fails("NotAllowed", renewed, uwe, uwe.identity)
    server.remove()


def the_lifetime_of_certificates_can_be_chosen(shared):
    server = Server().init()
    for text, wanted in (("certificate-lifetime = 12h", 12 * 3600), ("certificate-days = 3", 3 * 86400)):
        server.configure(text + "\n")
        server.start()
        account = "a%d" % wanted
        server.add(account)
        left = ends(server.sign(account).der) - time.time()
        assert wanted - 60 < left <= wanted + 1, left
        server.stop()
    for text in ("certificate-lifetime = never", "certificate-lifetime = 1s", "certificate-days = 0"):
        server.configure(text + "\n")
        assert server.command("status").returncode == 2, text
    server.remove()


def a_new_password_counts_at_once(shared):
    shared.add("finn")
    shared.ok("user", "passwd", "finn", "--password-file", "-", stdin="another passphrase\n")
    fails("WrongPassword", shared.sign, "finn")
    shared.sign("finn", "another passphrase")
    result = shared.command("user", "passwd", "finn", "--password-file", "-", stdin="short\n")
    assert result.returncode == 2 and "8" in result.stderr, result


def certificates_of_others_are_refused(shared):
    stranger = Identity("leo@" + DOMAIN).self_signed()
    refused(shared.login, stranger)
    foreign = Identity("leo@elsewhere.test").self_signed()
    # Nobody can be asked about that domain here.
    fails("UNKNOWN", shared.login, foreign)


def other_domains_are_not_served(shared):
    with Peer(shared.port) as peer:
        fails("UNKNOWN", peer.identify, "elsewhere.test")
    with Peer(shared.port) as peer:
        fails("UNKNOWN", peer.secure, shared.anchor, "elsewhere.test")
    with Peer(shared.port) as peer:
        fails("UNKNOWN", peer.identify, "../../etc/passwd")
    with shared.anonymous() as peer:
        fails("VerifyError", peer.inbound, "", "leo@elsewhere.test", "q2q-tun")


def what_was_acknowledged_survives_kill_9(shared):
    server = Server().init()
    code = server.invite("--uses", "100")
    added = []
    for round in range(5):
        server.start()
        with server.anonymous() as peer:
            for i in range(2):
                account = "user%d-%d" % (round, i)
                peer.register(DOMAIN, account, PASSWORD, code)
                added.append(account)
            # The answer is here; now the server dies without another instruction.
            server.stop(signal.SIGKILL)
    anchor = server.anchor
    server.start()
    assert server.anchor == anchor
    assert sorted(u["name"] for u in server.json("user", "list")["users"]) == sorted(added)
    assert server.json("invite", "list")["invites"][0]["uses_left"] == 100 - len(added)
    server.sign(added[-1])
    assert server.ok("check")
    server.remove()


def a_restart_keeps_accounts_and_certificates(shared):
    server = Server().init().start()
    with server.user("gina") as gina:
        assert server.stop() == 0
        assert gina.is_closed()
    server.start()
    with server.login(gina.identity) as again:
        again.listen(gina.address, "q2q-tun")
    server.remove()


def a_backup_made_while_running_is_a_whole_server(shared):
    server = Server().init().start()
    with server.user("hugo") as hugo:
        backup = os.path.join(server.base, "backup.db")
        server.ok("backup", backup)
        assert stat.S_IMODE(os.stat(backup).st_mode) == 0o600
        assert server.command("backup", backup).returncode == 1
    other = Server()
    os.mkdir(other.dir, 0o700)
    other.ok("restore", backup)
    assert other.command("restore", backup).returncode == 1
    other.start()
    assert other.anchor == server.anchor
    other.login(hugo.identity).call("source-ip")
    other.sign("hugo")
    other.remove()
    server.remove()


def status_tells_the_same_running_or_not(shared):
    server = Server().init()
    result = server.command("status", "--json")
    assert result.returncode == 9, result
    stopped = json.loads(result.stdout)
    server.start()
    running = server.json("status")
    for key in ("v", "domain", "fingerprint", "users"):
        assert running[key] == stopped[key], key
    assert running["running"] and not stopped["running"]
    for key in ("uptime_s", "connections", "online", "relayed_bytes", "rendezvous",
                "registration", "counters"):
        assert key in running, key
    assert DOMAIN in server.ok("status")
    server.remove()


def stun_request(transaction):
    return struct.pack("!HHI", 1, 0, 0x2112A442) + transaction


def the_udp_port_and_the_next_one_answer_stun(shared):
    for port in (shared.port, shared.port + 1):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(10)
        s.bind(("127.0.0.1", 0))
        transaction = os.urandom(12)
        s.sendto(stun_request(transaction), ("127.0.0.1", port))
        answer, source = s.recvfrom(2048)
        assert source == ("127.0.0.1", port)
        kind, length, cookie = struct.unpack_from("!HHI", answer)
        assert (kind, cookie) == (0x0101, 0x2112A442) and answer[8:20] == transaction
        mapped = struct.pack("!HHBBHI", 0x0020, 8, 0, 1, s.getsockname()[1] ^ 0x2112,
                             0x7F000001 ^ 0x2112A442)
        assert mapped in answer, answer.hex()
        s.close()


SYN, ACK, FIN = 1, 2, 4


def ptcp(flags, sequence, acknowledged, data=b""):
    return struct.pack("!HHIIIBIH", 8, 1, sequence, acknowledged, 489, flags,
                       zlib.crc32(data) if data else 0, len(data)) + data


def a_stock_client_learns_its_address_by_classic_ptcp(shared):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.bind(("127.0.0.1", 0))
    s.connect(("127.0.0.1", shared.port))
    s.send(ptcp(SYN, 0, 0))
    assert s.recv(600)[16] == SYN | ACK
    s.send(ptcp(ACK, 1, 1, encode_box({"_command": "Who-Am-I", "_ask": "1"})))
    while True:
        answer = s.recv(600)
        if len(answer) > 23:
            break
    box = server_peer.decode_boxes(answer[23:])[0]
    assert box["address"] == b"127.0.0.1:%d" % s.getsockname()[1], box
    s.close()


def junk_and_silence_cost_only_their_own_connection(shared):
    rng = random.Random(5)
    for i in range(60):
        peer = Peer(shared.port)
        peer.socket.sendall(bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300))))
        if i % 3:
            peer.close()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(300):
        udp.sendto(bytes(rng.randrange(256) for _ in range(rng.randrange(0, 600))),
                   ("127.0.0.1", shared.port))
    silent = Peer(shared.port)
    started = time.monotonic()
    assert silent.is_closed()
    assert time.monotonic() - started < 14
    shared.anonymous().call("source-ip")


def every_cut_of_a_conversation_leaves_the_server_alive(shared):
    whole = b"".join(encode_box(b) for b in (
        {"_command": "source-ip", "_ask": "1"},
        {"_command": "identify", "_ask": "2", "subject": DOMAIN},
        {"_command": "secure", "_ask": "3", "From": "", "to": DOMAIN, "authorize": "False"}))
    for n in range(0, len(whole), 3):
        with socket.create_connection(("127.0.0.1", shared.port)) as s:
            s.sendall(whole[:n])
    with Peer(shared.port) as peer:
        assert peer.identify(DOMAIN) == shared.anchor


def connections_of_one_address_are_bounded(shared):
    server = Server().init()
    server.configure("[limits]\nconnections-per-address = 5\n")
    server.start()
    peers = [Peer(server.port) for _ in range(5)]
    for peer in peers:
        peer.call("source-ip")
    assert Peer(server.port).is_closed()
    peers.pop().close()
    for _ in range(100):
        try:
            Peer(server.port).call("source-ip")
            break
        except Closed:
            time.sleep(0.05)
    else:
        raise AssertionError("no room after one left")
    server.remove()


def too_few_files_do_not_stop_the_server(shared):
    server = Server().init()
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (70, 70) if hard > 70 else (soft, hard))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (70, 70))
    peers = []
    for _ in range(45):
        peers.append(socket.create_connection(("127.0.0.1", server.port)))
    for peer in peers:
        peer.close()
    with Peer(server.port) as peer:
        assert peer.identify(DOMAIN) == server.anchor
    server.remove()


def users_of_another_domain_come_by_the_key_of_their_server(shared):
    a, b = Server("a.test").init().start(), Server("b.test").init()
    extra = "[domain a.test]\nserver = 127.0.0.1:%d\n" % a.port
    b.configure(extra)
    b.start()
    a.add("alice")
    alice = a.sign("alice")
    # On loopback a.test is the inside of a network: refused unless allowed.
    fails("UNKNOWN", a.login, alice, b)
    assert b.json("pins", "list")["pins"] == []
    b.stop()
    b.start("--federation-private", "yes")
    with a.login(alice, b) as visitor, b.user("bob") as bob:
        visitor.address = alice.address
        visitor.identity = alice
        pins = b.json("pins", "list")["pins"]
        assert [(p["domain"], p["fingerprint"]) for p in pins] == \
            [("a.test", fingerprint(a.anchor))]
        bob.listen(bob.address, "q2q-tun")
        meet(visitor, bob)
        fails("UNKNOWN", visitor.listen, alice.address, "q2q-tun")  # not her server
    # Another server with the same name and another key is not believed.
    port = a.port
    a.stop()
    fake = Server("a.test", port=port).init()
    fake.start()
    fake.add("alice")
    forged = fake.sign("alice")
    refused(fake.login, forged, b)
    with open(b.log) as log:
        assert "pins forget a.test" in log.read()
    b.ok("pins", "forget", "a.test")
    fake.login(forged, b).call("source-ip")
    for server in (a, b, fake):
        server.remove()


TWISTED_PEER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "q2q_peer.py")


class Twisted:
    """A client (or server) on Twisted's AMP that behaves as the original program does."""

    def __init__(self, base, kind):
        if subprocess.run([sys.executable, "-c", "import twisted, OpenSSL"],
                          capture_output=True).returncode != 0:
            raise unittest.SkipTest("apt-get install python3-twisted python3-openssl")
        self.command = [sys.executable, TWISTED_PEER, "--state", os.path.join(base, "q2q-" + kind),
                        "--kind", kind]

    def run(self, port, *arguments):
        return subprocess.run([*self.command, "--port", str(port), *arguments], text=True,
                              capture_output=True, timeout=60)

    def ok(self, port, *arguments):
        result = self.run(port, *arguments)
        assert result.returncode == 0, (arguments, result)
        return result.stdout.strip()

    def fails(self, port, *arguments):
        result = self.run(port, *arguments)
        assert result.returncode != 0, (arguments, result)
        return result.stdout + result.stderr

    def start(self, port, *arguments):
        """A process that stays; and the first line that it says."""
        process = subprocess.Popen([*self.command, "--port", str(port), *arguments], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return process, process.stdout.readline().strip()


def stock_clients_register_authorize_listen_and_find_each_other(shared):
    for kind in ("rsa", "p256"):
        server = Server().init()
        server.start("--registration", "open")
        stock, port = Twisted(server.base, kind), server.port
        assert stock.ok(port, "register", "ann@" + DOMAIN, PASSWORD).endswith("virtual")
        assert "NotAllowed" in stock.fails(port, "register", "ann@" + DOMAIN, PASSWORD)
        stock.ok(port, "register", "bob@" + DOMAIN, PASSWORD)
        assert "UNKNOWN" in stock.fails(port, "authorize", "ann@" + DOMAIN, "wrong password")
        assert "UNKNOWN" in stock.fails(port, "authorize", "eve@" + DOMAIN, PASSWORD)
        stock.ok(port, "authorize", "ann@" + DOMAIN, PASSWORD)
        stock.ok(port, "authorize", "bob@" + DOMAIN, PASSWORD)
        assert stock.ok(port, "who-am-i").startswith("127.0.0.1:")
        listener, said = stock.start(port, "--udp", "listen", "ann@" + DOMAIN, "greet")
        assert said == "listening"
        found = stock.ok(port, "inbound", "bob@" + DOMAIN, "ann@" + DOMAIN, "greet")
        assert found.splitlines() == ["bob@%s->ann@%s:1 tcp@127.0.0.1:9 interop"
                                      % (DOMAIN, DOMAIN), "entries 1"], found
        assert stock.ok(port, "inbound", "bob@" + DOMAIN, "ann@" + DOMAIN, "other") == "entries 0"
        assert stock.ok(port, "inbound", "bob@" + DOMAIN, "eve@" + DOMAIN, "greet") == "entries 0"
        server.stop()
        server.start()  # no more open; who is in stays in
        listener.wait(30)  # it ends with its connection
        assert stock.run(server.port, "register", "new@" + DOMAIN, PASSWORD).returncode != 0
        assert stock.ok(server.port, "inbound", "bob@" + DOMAIN, "ann@" + DOMAIN,
                        "greet") == "entries 0"
        listener.stdout.close()
        server.remove()


def users_of_a_stock_server_are_welcome(shared):
    server = Server("b.test").init()
    stock = Twisted(server.base, "rsa")
    process, said = stock.start(0, "serve", "stock.test")
    try:
        port = int(said.split()[1])
        server.configure("federation-private = yes\n"
                         "[domain stock.test]\nserver = 127.0.0.1:%d\n" % port)
        server.start()
        stock.ok(port, "register", "ann@stock.test", PASSWORD)
        stock.ok(port, "authorize", "ann@stock.test", PASSWORD)
        with server.user("bob") as bob:
            bob.listen(bob.address, "greet")
            asking = subprocess.Popen(
                [*stock.command, "--port", str(server.port), "inbound", "ann@stock.test",
                 bob.address, "greet"], stdout=subprocess.PIPE, text=True)
            got = bob.next_command("inbound")
            assert got["From"] == b"ann@stock.test"
            bob.answer(got, listeners=entry("1", ["tcp@127.0.0.1:9"]))
            assert "entries 1" in asking.communicate(timeout=30)[0]
        assert [p["domain"] for p in server.json("pins", "list")["pins"]] == ["stock.test"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    server.remove()


def an_unreachable_domain_is_told_and_not_asked_again_at_once(shared):
    server = Server("b.test").init()
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    server.configure("federation-private = yes\n[domain c.test]\nserver = 127.0.0.1:%d\n"
                     % free.getsockname()[1])
    server.start()
    stranger = Identity("x@c.test").self_signed()
    for _ in range(2):
        fails("UNKNOWN", server.login, stranger)
    with open(server.log) as log:
        text = log.read()
    assert text.count("cannot connect to its server") == 2, text  # the fetch, and the client
    assert text.count("could not be reached a moment ago") == 1, text
    free.close()
    server.remove()


def root_becomes_the_user_and_leaves_the_files_to_it(shared):
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root")
    server = Server()
    os.chmod(server.base, 0o755)
    nobody = pwd.getpwnam("nobody")
    server.configure("user = nobody\n")
    server.init().start()
    with open("/proc/%d/status" % server.process.pid) as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4, status["Uid"]
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4, status["Gid"]
    assert status["Groups"].split() in ([], [str(nobody.pw_gid)]), status["Groups"]
    assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    server.add("alice")  # by root, beside the server
    server.sign("alice")
    for file in os.listdir(server.dir):
        assert os.stat(os.path.join(server.dir, file)).st_uid == nobody.pw_uid, file
    # Who owns the directory needs not be named.
    server.stop()
    server.configure("")
    server.start()
    with open("/proc/%d/status" % server.process.pid) as f:
        assert "\nUid:\t%d\t" % nobody.pw_uid in f.read()
    server.configure("user = nobody\n")
    # Restored by root, it is the user's as well.
    backup = os.path.join(server.base, "backup.db")
    server.ok("backup", backup)
    server.stop()
    shutil.rmtree(server.dir)
    server.ok("restore", backup)
    server.start()
    server.sign("alice")
    server.remove()


def no_secret_reaches_the_log(shared):
    with open(shared.log) as log:
        text = log.read()
    assert PASSWORD not in text and "another passphrase" not in text
    assert "$scrypt$" not in text and "PRIVATE KEY" not in text


TESTS = [
    an_uninitialised_directory_is_refused_with_what_to_do,
    init_prints_the_fingerprint_and_never_overwrites,
    a_lost_database_is_not_replaced,
    a_second_server_on_one_directory_is_refused,
    usage_errors_have_their_exit_code,
    a_name_needs_an_invite_that_is_good,
    a_taken_or_bad_name_leaves_the_invite_unused,
    a_revoked_invite_is_refused,
    registration_can_be_open_or_closed,
    hangup_reads_the_configuration_again,
    nothing_is_registered_or_signed_in_clear,
    a_password_buys_a_certificate_of_that_name_only,
    wrong_passwords_and_unknown_users_look_the_same,
    guessing_has_to_wait_and_others_have_not,
    only_the_owner_listens,
    an_inbound_reaches_the_listener_and_comes_back_made_safe,
    a_forged_sender_is_refused_and_disconnected,
    an_empty_answer_says_why,
    a_silent_listener_costs_five_seconds_and_an_error_costs_nobody,
    every_listener_of_an_address_is_asked,
    a_rendezvous_passes_signals_and_data_both_ways_until_one_leaves,
    a_rendezvous_id_is_used_once_and_stock_requesters_see_no_offers,
    a_receiver_that_does_not_read_costs_the_server_little,
    bind_udp_reaches_the_listener_from_there,
    a_disabled_account_is_out_at_once_and_may_come_back,
    a_removed_account_is_out_for_good_even_if_the_name_comes_back,
    revoked_machines_are_out_and_the_account_authorizes_again,
    a_good_certificate_gets_a_successor_without_the_password,
    no_successor_for_who_may_not_be_here_any_more,
    the_lifetime_of_certificates_can_be_chosen,
    a_new_password_counts_at_once,
    certificates_of_others_are_refused,
    other_domains_are_not_served,
    what_was_acknowledged_survives_kill_9,
    a_restart_keeps_accounts_and_certificates,
    a_backup_made_while_running_is_a_whole_server,
    status_tells_the_same_running_or_not,
    the_udp_port_and_the_next_one_answer_stun,
    a_stock_client_learns_its_address_by_classic_ptcp,
    junk_and_silence_cost_only_their_own_connection,
    every_cut_of_a_conversation_leaves_the_server_alive,
    connections_of_one_address_are_bounded,
    users_of_another_domain_come_by_the_key_of_their_server,
    stock_clients_register_authorize_listen_and_find_each_other,
    users_of_a_stock_server_are_welcome,
    an_unreachable_domain_is_told_and_not_asked_again_at_once,
    root_becomes_the_user_and_leaves_the_files_to_it,
    no_secret_reaches_the_log,
    too_few_files_do_not_stop_the_server,  # last: it lowers this process's own limit
]


def main():
    wanted = sys.argv[1:]
    tests = [t for t in TESTS if not wanted or any(w in t.__name__ for w in wanted)]
    shared = Server().init().start()
    print("1..%d" % len(tests), flush=True)
    failed = 0
    for number, test in enumerate(tests, 1):
        try:
            test(shared)
            assert shared.process.poll() is None, "the server died"
            print("ok %d %s" % (number, test.__name__), flush=True)
        except unittest.SkipTest as reason:
            print("ok %d %s # SKIP %s" % (number, test.__name__, reason), flush=True)
        except Exception:  # a test that fails must not hide the others
            failed += 1
            for line in traceback.format_exc().splitlines():
                print("# " + line)
            print("not ok %d %s" % (number, test.__name__), flush=True)
            for server in [s for s in Server.all if s is not shared]:
                server.remove()
    if shared.process.poll() is None and shared.stop() != 0:
        print("# the shared server did not end in order")
        failed += 1
    if failed:
        with open(shared.log) as log:
            for line in log.read().splitlines()[-40:]:
                print("# log: " + line)
    shared.remove()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
