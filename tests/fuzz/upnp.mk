check_PROGRAMS += tests/fuzz/fuzz_upnp
FUZZ_HARNESSES += tests/fuzz/fuzz_upnp
tests_fuzz_fuzz_upnp_SOURCES = tests/fuzz/fuzz_upnp.c $(FUZZ_MAIN)
tests_fuzz_fuzz_upnp_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_upnp_LDADD = src/upnp/libupnp.la src/nat/libnat.la src/base/libbase.la
