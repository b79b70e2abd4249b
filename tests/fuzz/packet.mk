check_PROGRAMS += tests/fuzz/fuzz_packet
FUZZ_HARNESSES += tests/fuzz/fuzz_packet
tests_fuzz_fuzz_packet_SOURCES = tests/fuzz/fuzz_packet.c $(FUZZ_MAIN)
tests_fuzz_fuzz_packet_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_packet_LDADD = src/tun/libtun.la src/base/libbase.la
