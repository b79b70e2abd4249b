"""q2q-tun against a daemon that this file plays: what is asked, what is shown, which exit code."""

import json
import os
import pty
import socket
import subprocess
import sys
import tempfile
import threading

import tap
from tap import case

PROGRAM = os.environ["abs_top_builddir"] + "/src/cli/q2q-tun"


class Daemon:
    """Plays `script` with each that connects: a function of (request, send, receive)."""

    def __init__(self, script):
        self.directory = tempfile.TemporaryDirectory()
        self.path = self.directory.name + "/control"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.requests = []
        self.script = script
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            self.talk(self.listener.accept()[0])

    def talk(self, connection):
        stream = connection.makefile("rw")

        def send(**message):
            stream.write(json.dumps({"v": 1, "id": 1, **message}) + "\n")
            stream.flush()

        def send_raw(text):
            stream.write(text)
            stream.flush()

        send.raw = send_raw

        def receive():
            line = stream.readline()
            return json.loads(line) if line else None

        request = receive()
        self.requests.append(request)
        self.script(request, send, receive)
        stream.close()
        connection.close()


def run(script, *arguments, stdin=subprocess.DEVNULL, new_session=True):
    daemon = Daemon(script)
    done = subprocess.run(
        [PROGRAM, "--control", daemon.path, *arguments],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=20,
        start_new_session=new_session,  # no terminal to ask on
    )
    return done, daemon.requests[0] if daemon.requests else None


def succeed(**result):
    return lambda request, send, receive: send(ok=True, result=result)


def equal(got, want):
    assert got == want, "%r is not %r" % (got, want)


@case("up sends the address and its options, and shows the path")
def _():
    peer = {
        "address": "bob@b.test",
        "state": "up",
        "ipv4": "100.64.1.2",
        "path": {"kind": "relay-tcp", "rtt_us": 1500},
    }
    done, request = run(succeed(peer=peer), "up", "bob@b.test", "--wait", "2m", "--path", "relay", "--yes")
    equal(request["cmd"], "up")
    equal(request["args"], {"address": "bob@b.test", "wait_s": 120, "path": "relay", "yes": True})
    equal(done.returncode, 0)
    assert "relay-tcp" in done.stdout and "100.64.1.2" in done.stdout, done.stdout


@case("--as, --json and --timeout may stand before or after the command")
def _():
    for arguments in (["--as", "a@b.test", "--json", "status"], ["status", "--json", "--as", "a@b.test"]):
        done, request = run(succeed(self={}, peers=[]), *arguments)
        equal(request["args"], {"as": "a@b.test"})
        equal(json.loads(done.stdout), {"v": 1, "self": {}, "peers": []})


@case("an error is told with its hint, and its code is the exit code")
def _():
    for code in range(1, 10):
        script = lambda request, send, receive: send(ok=False, code=code, error="it broke", hint="mend it")
        done, _request = run(script, "deny", "a@b.test")
        equal(done.returncode, code)
        assert "it broke" in done.stderr and "mend it" in done.stderr, done.stderr
        equal(done.stdout, "")


@case("without a daemon the exit code is 9 and the message says how to start it")
def _():
    done = subprocess.run([PROGRAM, "--control", "/nonexistent/x", "status"], capture_output=True, text=True)
    equal(done.returncode, 9)
    assert "systemctl start" in done.stderr


@case("a daemon that closes in the middle is a failure, not a success")
def _():
    done, _request = run(lambda request, send, receive: send(progress="wait"), "up", "a@b.test")
    equal(done.returncode, 9)


@case("what is not JSON is refused")
def _():
    for text in ("hello\n", "[]\n", '{"ok": true, "ok": false}\n', '{"ok": tr\n'):
        done, _request = run(lambda request, send, receive: send.raw(text), "peers")
        equal((text, done.returncode), (text, 1))
        assert "JSON" in done.stderr, done.stderr


@case("a silent daemon ends in a timeout")
def _():
    done, _request = run(lambda request, send, receive: receive(), "--timeout", "1", "peers")
    equal(done.returncode, 5)


@case("wrong usage is exit code 2")
def _():
    for arguments in (["up"], ["nonsense"], ["up", "a@b", "c"], ["up", "a@b", "--path", "x"], ["down"], [],
                      ["down", "a@b", "--all"], ["ping", "a@b", "-c", "-1"], ["allow", "a@b", "--for", "1y"]):
        done = subprocess.run([PROGRAM, "--control", "/nonexistent/x", *arguments], capture_output=True)
        equal((arguments, done.returncode), (arguments, 2))


@case("a password comes from a file, or from standard input")
def _():
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("s3cret pass\nsecond line\n")
        file.flush()
        done, request = run(succeed(address="a@b.test"), "register", "a@b.test", "--password-file", file.name,
                            "--invite", "c0de")
        equal(request["args"]["password"], "s3cret pass")
        equal(request["args"]["invite"], "c0de")
        equal(request["args"]["authorize"], True)
        equal(done.returncode, 0)
        with open(file.name) as stdin:
            done, request = run(succeed(address="a@b.test"), "authorize", "a@b.test", "--password-file", "-",
                                stdin=stdin)
        equal(request["args"]["password"], "s3cret pass")


@case("a password on the command line is taken with a warning")
def _():
    done, request = run(succeed(address="a@b.test"), "register", "a@b.test", "pass", "--no-authorize")
    equal(request["args"]["password"], "pass")
    equal(request["args"]["authorize"], False)
    assert "warning" in done.stderr


@case("without a terminal and without a file, a password is asked for in vain: exit code 2")
def _():
    done = subprocess.run([PROGRAM, "--control", "/nonexistent/x", "register", "a@b.test"], capture_output=True,
                          text=True, start_new_session=True, stdin=subprocess.DEVNULL)
    equal(done.returncode, 2)
    assert "--password-file" in done.stderr


def ask_script(answers):
    def script(request, send, receive):
        send(ask={"kind": "trust-domain", "subject": "b.test", "fingerprint": "SHA256:abc",
                  "text": "The server \x1b[31mb.test is new."})
        answers.append(receive()["answer"])
        send(ok=True, result={})

    return script


@case("without a terminal, trust is not given")
def _():
    answers = []
    done, _request = run(ask_script(answers), "allow", "a@b.test")
    equal(answers, ["no"])
    assert "SHA256:abc" in done.stderr and "--yes" in done.stderr


@case("on a terminal the question is asked until it is answered, and cannot drive the terminal")
def _():
    answers = []
    daemon = Daemon(ask_script(answers))
    pid, master = pty.fork()
    if pid == 0:
        os.execv(PROGRAM, [PROGRAM, "--control", daemon.path, "allow", "a@b.test"])
    seen = b""
    for typed in (b"maybe\n", b"SHA256:abc\n"):
        while not seen.endswith(b"? ") and not seen.endswith(b": "):
            seen += os.read(master, 1000)
        os.write(master, typed)
        seen += b"\0"
    try:
        while True:
            seen += os.read(master, 1000)
    except OSError:
        pass
    _pid, status = os.waitpid(pid, 0)
    equal(os.waitstatus_to_exitcode(status), 0)
    equal(answers, ["SHA256:abc"])
    assert b"\x1b" not in seen and b"SHA256:abc" in seen, seen


@case("ping shows each answer as it comes; none at all is exit code 5")
def _():
    def script(request, send, receive):
        send(event={"seq": 1, "rtt_us": 12345, "path": {"kind": "direct-udp", "remote": "192.0.2.1:7"}})
        send(ok=True, result={"sent": 1, "received": 1, "min_us": 1, "avg_us": 2, "max_us": 3})

    done, request = run(script, "ping", "a@b.test", "-c", "1", "-i", "0.2")
    equal(request["args"], {"address": "a@b.test", "count": 1, "interval_ms": 200})
    assert "direct-udp" in done.stdout and "12 ms" in done.stdout, done.stdout
    equal(done.returncode, 0)
    done, _request = run(succeed(sent=3, received=0), "ping", "a@b.test")
    equal(done.returncode, 5)


@case("status shows a table, and hostile text cannot drive the terminal")
def _():
    peer = {"address": "b\x1b[2Job@b.test", "state": "down", "reason": "offline", "bytes_sent": 5000000}
    done, _request = run(succeed(self={"address": "a@b.test", "connected": True}, peers=[peer]), "status")
    assert "\x1b" not in done.stdout and "offline" in done.stdout and "4.8 MiB" in done.stdout, done.stdout


@case("status of one peer shows what was tried")
def _():
    pair = {"local_port": 4242, "remote": "192.0.2.7:5", "kind": "reflexive", "state": "failed",
            "reason": "no answer", "sent": 8, "rtt_us": 0}
    done, request = run(succeed(self={}, peers=[{"address": "b@b.test", "state": "up", "pairs": [pair]}]),
                        "status", "b@b.test")
    equal(request["args"], {"address": "b@b.test"})
    for word in ("4242", "192.0.2.7:5", "reflexive", "failed", "no answer"):
        assert word in done.stdout, done.stdout


@case("status of one peer tells of parity where there was any")
def _():
    peer = {"address": "b@b.test", "state": "up", "parity_bytes_sent": 5000000, "packets_rebuilt": 421}
    done, _request = run(succeed(self={}, peers=[peer]), "status", "b@b.test")
    assert "4.8 MiB sent, 421 packets rebuilt" in done.stdout, done.stdout
    peer["parity_bytes_sent"] = peer["packets_rebuilt"] = 0
    done, _request = run(succeed(self={}, peers=[peer]), "status", "b@b.test")
    assert "parity" not in done.stdout, done.stdout


DOCTOR = {
    "daemon": {"about": "q2q-tun 1", "device": "laptop"}, "self": {"server": "198.51.100.1:8788"},
    "network": {"udp_port": 7, "ipv4": {"asked": 2, "answered": 2, "udp": "works", "outside": "198.51.100.9:7"}},
    "peers": [{"address": "bob@b.test", "state": "up", "ipv6": "2001:db8::7", "interface": "q2q-bob",
               "explanation": ["packets go to 198.51.100.9:7, bob@b.test's"]}],
    "findings": [{"level": "warning", "text": "b.test and 192.168.1.2: SHA256:abc", "hint": "do it"}]}


@case("doctor explains, and says what it could not read")
def _():
    done, _request = run(succeed(**DOCTOR), "doctor")
    for word in ("works; seen from outside as 198.51.100.9:7", "packets go to", "warning", "-> do it", "firewall"):
        assert word in done.stdout, done.stdout
    equal(done.returncode, 0)


@case("a bundle has no name, public address or key in it")
def _():
    def script(request, send, receive):
        if request["cmd"] == "log":
            send(event={"line": "alice@b.test: interface q2q-bob is there, [2001:db8::7]:9 answers."})
            send(ok=True, result={})
        else:
            send(ok=True, result=json.loads(json.dumps(DOCTOR)))

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "bundle")
        done, _request = run(script, "doctor", "bob@b.test", "--bundle", path)
        equal(done.returncode, 0)
        equal(os.stat(path).st_mode & 0o777, 0o600)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        bundle = json.loads(text)
        for secret in ("bob", "alice", "b.test", "198.51", "2001:db8", "laptop", "SHA256"):
            assert secret not in text, text
        assert "192.168.1.2" in text and "packets go to ip-" in text, text
        address = bundle["doctor"]["peers"][0]["address"]
        assert bundle["doctor"]["peers"][0]["explanation"][0].endswith(address + "'s"), text
        assert bundle["log"][0]["line"].endswith(":9 answers."), text
        done, _request = run(script, "doctor", "--bundle", path)
        equal(done.returncode, 1)  # it never writes over a file


@case("two words make one command")
def _():
    done, request = run(succeed(), "peers", "pin", "a@b.test", "SHA256:x")
    equal(request["cmd"], "peers-pin")
    equal(request["args"], {"address": "a@b.test", "fingerprint": "SHA256:x"})
    equal(done.returncode, 0)


failed = tap.run()
sys.exit(failed)
