check_PROGRAMS += tests/fuzz/fuzz_amp
FUZZ_HARNESSES += tests/fuzz/fuzz_amp
tests_fuzz_fuzz_amp_SOURCES = tests/fuzz/fuzz_amp.c $(FUZZ_MAIN)
tests_fuzz_fuzz_amp_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_amp_LDADD = src/amp/libamp.la src/base/libbase.la
