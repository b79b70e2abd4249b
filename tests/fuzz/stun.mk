check_PROGRAMS += tests/fuzz/fuzz_stun
FUZZ_HARNESSES += tests/fuzz/fuzz_stun
tests_fuzz_fuzz_stun_SOURCES = tests/fuzz/fuzz_stun.c $(FUZZ_MAIN)
tests_fuzz_fuzz_stun_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_stun_LDADD = src/stun/libstun.la src/base/libbase.la
