check_PROGRAMS += tests/fuzz/fuzz_names
FUZZ_HARNESSES += tests/fuzz/fuzz_names
tests_fuzz_fuzz_names_SOURCES = tests/fuzz/fuzz_names.c $(FUZZ_MAIN)
tests_fuzz_fuzz_names_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_names_LDADD = src/base/libbase.la
