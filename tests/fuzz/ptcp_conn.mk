# pseudo-connections of src/ptcp
check_PROGRAMS += tests/fuzz/fuzz_ptcp_conn
FUZZ_HARNESSES += tests/fuzz/fuzz_ptcp_conn
tests_fuzz_fuzz_ptcp_conn_SOURCES = tests/fuzz/fuzz_ptcp_conn.c $(FUZZ_MAIN)
tests_fuzz_fuzz_ptcp_conn_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_ptcp_conn_LDADD = src/ptcp/libptcp.la src/base/libbase.la
