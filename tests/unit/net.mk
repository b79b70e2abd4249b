# unit tests of src/net
check_PROGRAMS += tests/unit/test_net
TESTS += tests/unit/test_net
tests_unit_test_net_SOURCES = tests/unit/test_net.c
tests_unit_test_net_LDADD = src/net/libnet.la src/q2q/libq2q.la src/amp/libamp.la \
	src/crypto/libcrypto.la src/base/libbase.la $(CMOCKA_LIBS)
