#!/bin/sh
# The name service module in getent, in a mount namespace with its own nsswitch.conf and /run.
[ "$(id -u)" -eq 0 ] || { echo "1..0 # SKIP a mount namespace of its own needs root"; exit 0; }
[ -x /usr/bin/python3 ] || { echo "1..0 # SKIP /usr/bin/python3 is missing (package python3)"; exit 0; }
unshare --mount true 2>/dev/null || { echo "1..0 # SKIP mount namespaces are not allowed here"; exit 0; }
NSS_TEST_DIRECTORY=$(mktemp -d /tmp/q2q-nss.XXXXXX)
NSS_TEST_LIBRARY=$NSS_TEST_DIRECTORY
export NSS_TEST_DIRECTORY NSS_TEST_LIBRARY
trap 'rm -rf "$NSS_TEST_DIRECTORY"' EXIT
chmod 0755 "$NSS_TEST_DIRECTORY"
cp "$abs_top_builddir"/src/nss/.libs/libnss_q2q.so.2.0.0 "$NSS_TEST_LIBRARY/libnss_q2q.so.2" || exit 99
sed 's/^hosts:.*/hosts: files q2q/' /etc/nsswitch.conf >"$NSS_TEST_DIRECTORY/nsswitch.conf"
unshare --mount sh -c '
    mount -t tmpfs tmpfs /run && mount --bind "$NSS_TEST_DIRECTORY/nsswitch.conf" /etc/nsswitch.conf &&
    exec /usr/bin/python3 "$abs_top_srcdir/tests/unit/nss.py"'
