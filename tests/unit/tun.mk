# unit tests of src/tun
check_PROGRAMS += tests/unit/test_packet
TESTS += tests/unit/test_packet
tests_unit_test_packet_SOURCES = tests/unit/test_packet.c
tests_unit_test_packet_LDADD = src/tun/libtun.la src/base/libbase.la $(CMOCKA_LIBS)
