# unit tests of the pseudo-connections in src/ptcp
check_PROGRAMS += tests/unit/test_ptcp_conn tests/unit/test_ptcp_conn_life
TESTS += tests/unit/test_ptcp_conn tests/unit/test_ptcp_conn_life
tests_unit_test_ptcp_conn_SOURCES = tests/unit/test_ptcp_conn.c tests/unit/unit.h
tests_unit_test_ptcp_conn_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_ptcp_conn_life_SOURCES = tests/unit/test_ptcp_conn_life.c tests/unit/unit.h \
	tests/unit/wrapped_memory.h
tests_unit_test_ptcp_conn_life_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_ptcp_conn_life_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc \
	-Wl,--wrap=realloc,--wrap=free
