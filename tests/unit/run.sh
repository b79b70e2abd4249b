#!/bin/bash
# Runs a cmocka program, whose word for a skipped case is "not ok N # SKIP"; TAP's is "ok".
"$@" | sed -u -E 's/^not (ok [0-9]+ # SKIP)/\1/'
exit "${PIPESTATUS[0]}"
