#!/bin/sh
# The command line against a daemon that Python plays.
[ -x /usr/bin/python3 ] || { echo "1..0 # SKIP /usr/bin/python3 is missing (package python3)"; exit 0; }
exec /usr/bin/python3 "$abs_top_srcdir/tests/unit/cli.py"
