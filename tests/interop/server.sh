#!/bin/sh
# The real q2q-server against a client written in Python.
srcdir=${abs_top_srcdir:-.}
python=/usr/bin/python3
if [ ! -x "$python" ]; then
	echo "1..0 # SKIP python3 is missing"
	exit 0
fi
PYTHONDONTWRITEBYTECODE=1
export PYTHONDONTWRITEBYTECODE
exec "$python" "$srcdir/tests/interop/server_test.py" "$@"
