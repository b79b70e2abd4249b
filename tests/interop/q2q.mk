# our q2q connection and the real server against Twisted's AMP
check_PROGRAMS += tests/interop/amp_peer
tests_interop_amp_peer_SOURCES = tests/interop/amp_peer.c
tests_interop_amp_peer_LDADD = src/q2q/libq2q.la src/amp/libamp.la src/crypto/libcrypto.la \
	src/base/libbase.la
TESTS += tests/interop/q2q_twisted.sh
if ENABLE_SERVER
TESTS += tests/interop/q2q_stock.sh
endif
dist_check_SCRIPTS += tests/interop/q2q_twisted.sh tests/interop/q2q_stock.sh
EXTRA_DIST += tests/interop/q2q_peer.py tests/interop/q2q_twisted.py tests/interop/q2q_stock.py
