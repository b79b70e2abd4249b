# unit tests of src/relay
check_PROGRAMS += tests/unit/test_relay
TESTS += tests/unit/test_relay
tests_unit_test_relay_SOURCES = tests/unit/test_relay.c
tests_unit_test_relay_LDADD = src/relay/librelay.la src/q2q/libq2q.la src/amp/libamp.la \
	src/crypto/libcrypto.la src/base/libbase.la $(OPENSSL_LIBS) $(CMOCKA_LIBS)
