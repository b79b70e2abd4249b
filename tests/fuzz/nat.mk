check_PROGRAMS += tests/fuzz/fuzz_nat
FUZZ_HARNESSES += tests/fuzz/fuzz_nat
tests_fuzz_fuzz_nat_SOURCES = tests/fuzz/fuzz_nat.c $(FUZZ_MAIN)
tests_fuzz_fuzz_nat_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_nat_LDADD = src/nat/libnat.la src/base/libbase.la
