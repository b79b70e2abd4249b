#!/bin/sh
# q2q-tund and its service manager, in a network namespace without a network.
[ "$(id -u)" -eq 0 ] || { echo "1..0 # SKIP a network namespace of its own needs root"; exit 0; }
[ -x /usr/bin/python3 ] || { echo "1..0 # SKIP /usr/bin/python3 is missing (package python3)"; exit 0; }
unshare --net true 2>/dev/null || { echo "1..0 # SKIP network namespaces are not allowed here"; exit 0; }
[ -c /dev/net/tun ] || { echo "1..0 # SKIP /dev/net/tun is missing"; exit 0; }
exec unshare --net /usr/bin/python3 "$abs_top_srcdir/tests/unit/notify.py"
