#!/bin/sh
# Our q2q connection against Twisted's AMP, on loopback. Needs Debian's python3-twisted.
python=${PYTHON3:-/usr/bin/python3}
if ! "$python" -c 'import twisted.protocols.amp, OpenSSL, cryptography' 2>/dev/null; then
    echo "1..0 # SKIP Twisted is not installed: apt-get install python3-twisted python3-openssl"
    exit 0
fi
PYTHONDONTWRITEBYTECODE=1 exec "$python" "${abs_top_srcdir:-.}/tests/interop/q2q_twisted.py" \
    "${abs_top_builddir:-.}/tests/interop/amp_peer"
