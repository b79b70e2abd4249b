"""What a service manager hears of q2q-tund: READY, WATCHDOG while the daemon's loop turns, RELOADING, STOPPING."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import tap
from tap import case

BUILD = os.environ["abs_top_builddir"]
PROGRAM = BUILD + "/src/daemon/q2q-tund"
if os.path.exists(BUILD + "/src/daemon/.libs/q2q-tund"):
    PROGRAM = BUILD + "/src/daemon/.libs/q2q-tund"


class Service:
    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="q2q-notify.")
        path = self.directory.name
        os.chmod(path, 0o755)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path + "/notify")
        os.chmod(path + "/notify", 0o666)
        with open(path + "/empty.conf", "w"):
            pass
        os.mkdir(path + "/q2q-tun")
        environment = dict(os.environ, NOTIFY_SOCKET=path + "/notify", WATCHDOG_USEC="800000")
        self.process = subprocess.Popen(
            [PROGRAM, "--foreground", "--user", "nobody", "--config", path + "/empty.conf"]
            + ["--state-dir", path + "/state", "--control", path + "/q2q-tun/control"]
            + ["--names-socket", path + "/q2q-tun/names"],
            env=environment,
            stderr=subprocess.PIPE,
        )

    def daemon_pid(self):
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as children:
            return int(children.read().split()[0])

    def hear(self, seconds):
        """Everything said in that time."""
        said, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                said.append(self.socket.recv(4096).decode())
            except socket.timeout:
                break
        return said

    def hear_until(self, what, seconds):
        said, end = [], time.monotonic() + seconds
        while what not in said and (left := end - time.monotonic()) > 0:
            said += self.hear(min(left, 0.1))
        return said


service = Service()


@case("READY=1 comes once, when the control socket is there")
def _():
    said = service.hear_until("READY=1", 30)
    assert said.count("READY=1") == 1, (said, service.process.poll())
    assert os.path.exists(service.directory.name + "/q2q-tun/control")


@case("WATCHDOG=1 comes several times in each interval")
def _():
    for _ in range(10):  # the first is enough but where the machine is busy
        said = service.hear(1.6)
        assert "READY=1" not in said, said
        if said.count("WATCHDOG=1") >= 4:
            return
    assert False, said


@case("a daemon that stands still is not covered up by the monitor")
def _():
    os.kill(service.daemon_pid(), signal.SIGSTOP)
    service.hear(0.3)
    said = service.hear(1.2)
    assert said == [], said
    os.kill(service.daemon_pid(), signal.SIGCONT)
    assert "WATCHDOG=1" in service.hear_until("WATCHDOG=1", 30)


def reload(lines):
    with open(service.directory.name + "/empty.conf", "w") as conf:
        conf.write(lines)
    service.process.send_signal(signal.SIGHUP)
    said, end = [], time.monotonic() + 30
    while not any(s.startswith("READY=1") for s in said) and time.monotonic() < end:
        said += service.hear(0.1)
    return [s for s in said if s != "WATCHDOG=1"]


@case("SIGHUP: RELOADING=1 with the time, then READY=1")
def _():
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    said = reload("[daemon]\nlog-level = notice\n")
    assert len(said) == 2 and said[1] == "READY=1\nSTATUS=", said
    lines = said[0].split("\n")
    assert lines[0] == "RELOADING=1", said
    name, value = lines[1].split("=")
    assert name == "MONOTONIC_USEC", said
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, said


@case("a configuration with a fault is told of in the status")
def _():
    said = reload("[daemon]\nlog-level = loud\n")
    assert len(said) == 2 and said[0].startswith("RELOADING=1\n"), said
    assert said[1].startswith("READY=1\nSTATUS=") and "fault" in said[1], said
    assert service.process.poll() is None


@case("SIGTERM: STOPPING=1, and the exit status is 0")
def _():
    service.process.send_signal(signal.SIGTERM)
    said = service.hear_until("STOPPING=1", 30)
    assert said.count("STOPPING=1") == 1, said
    assert service.process.wait(30) == 0, service.process.returncode


failed = tap.run()
if service.process.poll() is None:
    service.process.kill()
for line in service.process.stderr.read().decode(errors="replace").splitlines():
    print("# " + line)
sys.exit(failed)
