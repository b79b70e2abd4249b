#!/bin/sh
# The protocol cores own no socket, clock, random source, file or output: their
# libraries must not refer to a function that would give them one.
set -u
cores="amp stun q2q nat ptcp session relay"
banned='socket|socketpair|bind|listen|connect|accept4?|send|sendto|sendmsg|sendmmsg|recv|recvfrom|recvmsg|recvmmsg|poll|ppoll|select|epoll_.*|open|open64|openat|openat64|fopen|fopen64|read|write|ioctl|time|clock|clock_gettime|gettimeofday|timerfd_.*|getrandom|getentropy|rand|rand_r|random|srand|drand48|arc4random.*|RAND_.*|printf|fprintf|__printf_chk|__fprintf_chk|puts|perror|syslog|getenv|secure_getenv|sleep|usleep|nanosleep|pthread_.*|fork|log_.*|event_.*|ares_.*|crypto_random.*'
# A timestamp as text is arithmetic; asking for the time is not.
# shellcheck disable=SC2086
set -- $cores
echo "1..$#"
n=0
for core in "$@"; do
    n=$((n + 1))
    archive=$abs_top_builddir/src/$core/.libs/lib$core.a
    [ -f "$archive" ] || archive=$abs_top_builddir/src/$core/lib$core.a
    if [ ! -f "$archive" ]; then
        echo "not ok $n - src/$core: $archive is missing"
        continue
    fi
    bad=$(nm -u "$archive" 2>/dev/null | awk '$1 == "U" { sub(/@.*/, "", $2); print $2 }' | sort -u |
        grep -xE "$banned")
    if [ -z "$bad" ]; then
        echo "ok $n - src/$core refers to no socket, clock, random source, file or output"
    else
        echo "$bad" | sed 's/^/# src\/'"$core"' calls /'
        echo "not ok $n - src/$core refers to no socket, clock, random source, file or output"
    fi
done
