# Benchmarks: what contrib/bench and contrib/wan-try run. Only the model of the
# link is tested in `make check`; nothing there measures time.
noinst_PROGRAMS += tests/bench/wan
tests_bench_wan_SOURCES = tests/bench/wan.c tests/bench/link.c tests/bench/link.h
tests_bench_wan_LDADD = src/base/libbase.la -lm

check_PROGRAMS += tests/bench/test_link
TESTS += tests/bench/test_link
tests_bench_test_link_SOURCES = tests/bench/test_link.c tests/bench/link.c tests/bench/link.h
tests_bench_test_link_LDADD = $(CMOCKA_LIBS) -lm
EXTRA_DIST += tests/bench/wanlab.sh tests/bench/tunnels.sh tests/bench/cell.py \
	tests/bench/keys.py tests/bench/report.py tests/bench/limits.json

noinst_PROGRAMS += tests/bench/null_tunnel
tests_bench_null_tunnel_SOURCES = tests/bench/null_tunnel.c
tests_bench_null_tunnel_LDADD = src/base/libbase.la $(OPENSSL_LIBS) $(IPSEC_MB_LIBS)

noinst_PROGRAMS += tests/bench/packets
tests_bench_packets_SOURCES = tests/bench/packets.c
tests_bench_packets_LDADD = src/base/libbase.la -lm

# Many peers: load plays their far ends, scale.sh measures, tests/netns/many.sh is its small form.
noinst_PROGRAMS += tests/bench/load
tests_bench_load_SOURCES = tests/bench/load.c
tests_bench_load_LDADD = src/session/libsession.la src/net/libnet.la src/q2q/libq2q.la \
	src/amp/libamp.la src/nat/libnat.la src/stun/libstun.la src/ptcp/libptcp.la \
	src/tun/libtun.la src/crypto/libcrypto.la src/base/libbase.la $(OPENSSL_LIBS)
EXTRA_DIST += tests/bench/scale.sh tests/bench/scale_lab.sh
