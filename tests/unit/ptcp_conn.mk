# unit tests of the pseudo-connections in src/ptcp
check_PROGRAMS += tests/unit/test_ptcp_conn
TESTS += tests/unit/test_ptcp_conn
tests_unit_test_ptcp_conn_SOURCES = tests/unit/test_ptcp_conn.c tests/unit/unit.h
tests_unit_test_ptcp_conn_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
