#!/bin/sh
# Replays the seed corpus of every fuzz harness; one TAP case per harness.
set -u
n=0
for harness in $FUZZ_HARNESSES; do
    n=$((n + 1))
done
echo "1..$n"
i=0
for harness in $FUZZ_HARNESSES; do
    i=$((i + 1))
    name=${harness##*/fuzz_}
    if out=$("$abs_top_builddir/$harness" "$abs_top_srcdir/tests/fuzz/corpus/$name" 2>&1); then
        echo "ok $i - $name: ${out##*: }"
    else
        echo "$out" | sed 's/^/# /'
        echo "not ok $i - $name"
    fi
done
