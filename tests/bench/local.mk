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
