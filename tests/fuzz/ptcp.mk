# harness of src/ptcp
check_PROGRAMS += tests/fuzz/fuzz_ptcp
FUZZ_HARNESSES += tests/fuzz/fuzz_ptcp
tests_fuzz_fuzz_ptcp_SOURCES = tests/fuzz/fuzz_ptcp.c $(FUZZ_MAIN)
tests_fuzz_fuzz_ptcp_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_ptcp_LDADD = src/ptcp/libptcp.la src/base/libbase.la
