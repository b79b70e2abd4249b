#!/bin/sh
# The real q2q-server and a client that speaks as the original does, on loopback.
python=${PYTHON3:-/usr/bin/python3}
if ! "$python" -c 'import twisted.protocols.amp, OpenSSL, cryptography' 2>/dev/null; then
    echo "1..0 # SKIP Twisted is not installed: apt-get install python3-twisted python3-openssl"
    exit 0
fi
PYTHONDONTWRITEBYTECODE=1 exec "$python" "${abs_top_srcdir:-.}/tests/interop/q2q_stock.py" \
    "${abs_top_builddir:-.}/src/server/q2q-server"
