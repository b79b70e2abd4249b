# unit tests of src/net
check_PROGRAMS += tests/unit/test_net
TESTS += tests/unit/test_net
tests_unit_test_net_SOURCES = tests/unit/test_net.c tests/unit/net_rig.h
tests_unit_test_net_LDADD = src/net/libnet.la src/q2q/libq2q.la src/amp/libamp.la \
	src/crypto/libcrypto.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_net_threads
TESTS += tests/unit/test_net_threads
tests_unit_test_net_threads_SOURCES = tests/unit/test_net_threads.c tests/unit/net_rig.h
tests_unit_test_net_threads_LDADD = src/net/libnet.la src/q2q/libq2q.la src/amp/libamp.la \
	src/crypto/libcrypto.la src/base/libbase.la $(CMOCKA_LIBS)
