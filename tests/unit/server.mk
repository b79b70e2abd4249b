# unit tests of src/server
if ENABLE_SERVER
check_PROGRAMS += tests/unit/test_server
TESTS += tests/unit/test_server
tests_unit_test_server_SOURCES = tests/unit/test_server.c
tests_unit_test_server_LDADD = src/server/libserver.la src/store/libstore.la src/net/libnet.la \
	src/q2q/libq2q.la src/amp/libamp.la src/crypto/libcrypto.la src/conf/libconf.la \
	src/base/libbase.la $(CMOCKA_LIBS)
endif
