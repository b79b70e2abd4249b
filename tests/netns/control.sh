#!/usr/bin/env bash
# The control socket: questions about trust, who may what, what is said about a
# peer that is offline, down or gone.
. "$(dirname "$0")/tunnel_lab.sh"
tunnel_lab control
tunnel_lab_register
cat >"$LAB_DIR/ask.py" <<'PYTHON'
# ask.py ANSWER CMD JSON-ARGS: prints every message; answers questions with ANSWER ("FP": the fingerprint shown)
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("/run/q2q-tun/control")
s.settimeout(30)
def send(o): s.sendall((json.dumps(o) + "\n").encode())
send({"v": 1, "id": 1, "cmd": sys.argv[2], "args": json.loads(sys.argv[3])})
for line in s.makefile():
    print(line, end="", flush=True)
    m = json.loads(line)
    if "ask" in m:
        answer = sys.argv[1]
        send({"v": 1, "id": 1, "answer": m["ask"]["fingerprint"] if answer == "FP" else answer})
    if "ok" in m:
        sys.exit(0 if m["ok"] else m["code"])
sys.exit(99)
PYTHON
ask() {
    local host=$1
    shift
    on "$host" python3 - "$@" <"$LAB_DIR/ask.py"
}
up='{"address":"bob@server.test"}'

on bob q2q-tun allow alice@server.test >/dev/null || tap_bail "allow"
tap "a peer's key is asked about, with its fingerprint" says '"kind":"trust-peer".*SHA256:' ask alice no up "$up"
tap "no means no" exits_with 7 ask alice no up "$up"
tap "another fingerprint means no" exits_with 7 ask alice SHA256:nonsense up "$up"
tap "and the refused key does not come in as a call of its owner" \
    eval '! on bob q2q-tun up alice@server.test --yes --wait 4'
on bob q2q-tun down alice@server.test
on bob q2q-tun allow alice@server.test >/dev/null
tap "its fingerprint means yes" ask alice FP up "$up"
tap "packets pass" on alice ping -c 2 -i 0.2 -W 2 bob.server.test.q2q
tap "it is not asked again" exits_with 1 eval 'ask alice no up "$up" | grep -q "\"ask\""'

as_nobody() {
    local host=$1
    shift
    on "$host" setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}
tap "everybody may see the status" as_nobody alice q2q-tun status
tap "and the peers, without their keys" says '"pinned": *null' as_nobody alice q2q-tun --json peers
tap "but not change anything" exits_with 4 as_nobody alice q2q-tun down bob@server.test
tap "and is told who may" says 'group q2q-tun' as_nobody alice q2q-tun down bob@server.test
tap "a member of the group may" on alice setpriv --reuid=65534 --regid=64188 --clear-groups q2q-tun ping bob@server.test -c 1

crowd() {
    on alice setpriv --reuid="$1" --regid=65534 --clear-groups python3 -c '
import socket, time
held = []
for i in range(200):
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/q2q-tun/control")
    held.append(s)
print("held", flush=True)
time.sleep(60)' >"$LAB_DIR/crowd-$1.log" 2>&1 &
    wait_for 10 grep -q held "$LAB_DIR/crowd-$1.log"
}
for uid in 65531 65532 65533 65534; do
    crowd $uid
    CROWD="${CROWD:-} $!"
done
tap "a crowd of users that may only look does not keep the operator out" on alice q2q-tun status
# shellcheck disable=SC2086
kill $CROWD
tap "bob takes it down on his side" on bob q2q-tun down alice@server.test
not_up() {
    ! peer_state_is alice up
}
tap "alice sees that" wait_for 12 not_up
tap "and why" says 'down' on alice q2q-tun up bob@server.test
tap "which is a denial" exits_with 4 on alice q2q-tun up bob@server.test
tap "bob brings it up" on bob q2q-tun up alice@server.test --yes
tap "alice has it too" wait_for 12 peer_state_is alice up

on bob sh -c 'kill -TERM $(pgrep -o -x q2q-tund)'
tap "bob's daemon ends, and alice knows at once" wait_for 12 not_up
tap "offline has its own code" exits_with 6 on alice q2q-tun up bob@server.test
tap "and is said so" says 'bob@server.test is offline' on alice q2q-tun up bob@server.test
wait_for 30 eval '! on bob pgrep -x q2q-tund'
lab_daemon_start bob || tap_bail "q2q-tund of bob"
tap "when he is back, so is the tunnel" wait_for 60 peer_state_is alice up
tap "forgetting a peer takes it down" on alice q2q-tun peers forget bob@server.test
tap "and he is not known any more" exits_with 3 on alice q2q-tun status bob@server.test

# Junk on the socket costs the sender its connection and nothing else.
junk() {
    on alice python3 -c '
import socket
for data in (b"\n", b"{}\n", b"[1]\n", b"\xff\xfe\n", b"{\"v\":1,\"id\":1,\"cmd\":\"status\",\"cmd\":\"down\"}\n", b"x" * 300000 + b"\n"):
    s = socket.socket(socket.AF_UNIX); s.connect("/run/q2q-tun/control"); s.settimeout(5)
    try:
        s.sendall(data)
        while s.recv(4096): pass
    except (BrokenPipeError, ConnectionResetError): pass
'
}
tap "junk ends its connection" junk
tap "and the daemon serves on" on alice q2q-tun status
tap_done
