#!/usr/bin/env bash
# The real daemon beside programs that speak Q2Q as the original does, on
# Twisted's own AMP: a Python user of our server whom our daemon finds, and a
# Python server at which our daemon registers, authorizes, listens and finds.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/lab.sh"
reason=$(lab_need_root) || tap_skip_all "$reason"
/usr/bin/python3 -c 'import twisted.protocols.amp, OpenSSL, cryptography' 2>/dev/null ||
    tap_skip_all "Twisted is missing (packages python3-twisted, python3-openssl)"
cd "$(dirname "$0")" || exit 99
PEER="/usr/bin/python3 -B ${abs_top_srcdir:?}/tests/interop/q2q_peer.py"

lab_start twisted
lab_use_root "$abs_top_builddir/tests/netns/root"
lab_internet || tap_bail "the lab's network"
lab_host stock
lab_link core 192.0.3.1/24 stock 192.0.3.10/24 srvb eth0
on stock ip route add default via 192.0.3.1
lab_dns core 192.0.2.1 --host-record=server.test,192.0.2.10 --srv-host=_q2q._tcp.server.test,server.test,8788 \
    --host-record=stock.test,192.0.3.10
on server q2q-server --data-dir $LAB_DATA init server.test >/dev/null || tap_bail "init"
# Clients that speak as the original does cannot send an invitation.
lab_server_start server 192.0.2.10:8788 --registration open || tap_bail "q2q-server"
lab_daemon_start alice || tap_bail "q2q-tund of alice"
echo "alice's password" | on alice sh -c 'umask 077; cat >/root/password'

# A Python user at our server, and our daemon that looks for it.
python_at_server() {
    on bob $PEER --state /root/py --host 192.0.2.10 --port 8788 "$@"
}
tap "alice registers at our server" on alice q2q-tun register alice@server.test --password-file /root/password --yes
tap "a Python client registers at our server" python_at_server register py@server.test "a python's password"
tap "and authorizes" python_at_server authorize py@server.test "a python's password"
spawn bob python-listen.log $PEER --state /root/py --host 192.0.2.10 --port 8788 listen py@server.test q2q-tun
listens() {
    on server q2q-server --data-dir $LAB_DATA status | grep -q py@server.test
}
tap "and listens" wait_for 30 listens
on alice q2q-tun up py@server.test --yes --wait 5 >"$LAB_DIR/up.log" 2>&1
tap "our daemon finds it: the inbound arrives there" wait_for 30 grep -q 'inbound from alice@server.test' "$LAB_DIR/python-listen.log"
tap "and says that it is no q2q-tun" says 'does not speak q2q-tun' cat "$LAB_DIR/up.log"

# A Python server, and our daemon at it.
spawn stock python-server.log $PEER --state /root/server --host 192.0.3.10 serve stock.test --port 8788
wait_for 30 on stock sh -c 'ss -Hltn sport = :8788 | grep -q .' || tap_bail "the Python server"
tap "our daemon registers at a Python server" \
    on alice q2q-tun register alice@stock.test --password-file /root/password --yes
tap "and has a certificate of it" says 'alice@stock.test' on alice q2q-tun identity
connected() {
    on alice q2q-tun identity | grep 'alice@stock.test' | grep -qv 'not connected'
}
tap "and listens there" wait_for 40 connected
tap "a second Python user registers there" on bob $PEER --state /root/py2 --host 192.0.3.10 --port 8788 register py@stock.test secret2
tap "and authorizes" on bob $PEER --state /root/py2 --host 192.0.3.10 --port 8788 authorize py@stock.test secret2
tap "and asks for our daemon, which shows nothing to whom it does not know" says '^entries 0' \
    on bob $PEER --state /root/py2 --host 192.0.3.10 --port 8788 inbound py@stock.test alice@stock.test q2q-tun
tap "the daemon is still there" on alice q2q-tun status
tap_done
