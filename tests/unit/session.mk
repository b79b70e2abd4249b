# unit tests of src/session
check_PROGRAMS += tests/unit/test_vip tests/unit/test_session tests/unit/test_stream
TESTS += tests/unit/test_vip tests/unit/test_session tests/unit/test_stream
SESSION_TEST_LIBS = src/session/libsession.la src/q2q/libq2q.la src/amp/libamp.la src/nat/libnat.la \
	src/ptcp/libptcp.la \
	src/tun/libtun.la src/crypto/libcrypto.la src/base/libbase.la $(OPENSSL_LIBS) $(CMOCKA_LIBS)
tests_unit_test_vip_SOURCES = tests/unit/test_vip.c
tests_unit_test_vip_LDADD = $(SESSION_TEST_LIBS)
tests_unit_test_stream_SOURCES = tests/unit/test_stream.c
tests_unit_test_stream_LDADD = $(SESSION_TEST_LIBS)
tests_unit_test_session_SOURCES = tests/unit/test_session.c tests/unit/session_world.h
tests_unit_test_session_LDADD = $(SESSION_TEST_LIBS)
