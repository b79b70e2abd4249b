check_PROGRAMS += tests/fuzz/fuzz_offer tests/fuzz/fuzz_ctl
FUZZ_HARNESSES += tests/fuzz/fuzz_offer tests/fuzz/fuzz_ctl
tests_fuzz_fuzz_offer_SOURCES = tests/fuzz/fuzz_offer.c $(FUZZ_MAIN)
tests_fuzz_fuzz_offer_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_offer_LDADD = src/session/libsession.la src/nat/libnat.la src/ptcp/libptcp.la \
	src/tun/libtun.la src/crypto/libcrypto.la src/base/libbase.la $(OPENSSL_LIBS)
tests_fuzz_fuzz_ctl_SOURCES = tests/fuzz/fuzz_ctl.c $(FUZZ_MAIN)
tests_fuzz_fuzz_ctl_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_ctl_LDADD = src/ctl/libctl.la src/base/libbase.la $(JANSSON_LIBS)
check_PROGRAMS += tests/fuzz/fuzz_stream
FUZZ_HARNESSES += tests/fuzz/fuzz_stream
tests_fuzz_fuzz_stream_SOURCES = tests/fuzz/fuzz_stream.c $(FUZZ_MAIN)
tests_fuzz_fuzz_stream_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_fuzz_stream_LDADD = src/session/libsession.la src/nat/libnat.la src/ptcp/libptcp.la \
	src/tun/libtun.la src/crypto/libcrypto.la src/base/libbase.la $(OPENSSL_LIBS)
