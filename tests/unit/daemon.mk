# unit tests of src/daemon
check_PROGRAMS += tests/unit/test_daemon
TESTS += tests/unit/test_daemon
tests_unit_test_daemon_SOURCES = tests/unit/test_daemon.c
tests_unit_test_daemon_LDADD = src/daemon/libdaemon.la src/ctl/libctl.la \
	src/session/libsession.la src/net/libnet.la src/q2q/libq2q.la src/amp/libamp.la \
	src/nat/libnat.la src/stun/libstun.la src/ptcp/libptcp.la src/tun/libtun.la \
	src/crypto/libcrypto.la src/conf/libconf.la src/base/libbase.la $(JANSSON_LIBS) \
	$(OPENSSL_LIBS) $(CMOCKA_LIBS)
