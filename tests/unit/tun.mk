# unit tests of src/tun; test_tun_link needs root and makes network namespaces of its own
check_PROGRAMS += tests/unit/test_packet tests/unit/test_tun_ipc tests/unit/test_tun_link
TESTS += tests/unit/test_packet tests/unit/test_tun_ipc tests/unit/test_tun_link
tests_unit_test_packet_SOURCES = tests/unit/test_packet.c
tests_unit_test_packet_LDADD = src/tun/libtun.la src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_tun_ipc_SOURCES = tests/unit/test_tun_ipc.c
tests_unit_test_tun_ipc_LDADD = src/tun/libtun.la src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_tun_link_SOURCES = tests/unit/test_tun_link.c
tests_unit_test_tun_link_LDADD = src/tun/libtun.la src/base/libbase.la $(CMOCKA_LIBS)
