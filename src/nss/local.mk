# nss: libnss_q2q.so.2, loaded into every process; base and nothing else
nss_LTLIBRARIES += src/nss/libnss_q2q.la
src_nss_libnss_q2q_la_SOURCES = src/nss/nss_q2q.c
src_nss_libnss_q2q_la_LIBADD = src/base/libbase.la
src_nss_libnss_q2q_la_LDFLAGS = $(AM_LDFLAGS) -version-info 2:0:0 \
	-Wl,--version-script=$(srcdir)/src/nss/libnss_q2q.map
EXTRA_src_nss_libnss_q2q_la_DEPENDENCIES = src/nss/libnss_q2q.map
EXTRA_DIST += src/nss/libnss_q2q.map

# glibc looks for libnss_q2q.so.2; nobody links against it.
install-data-hook:
	rm -f '$(DESTDIR)$(nssdir)/libnss_q2q.la' '$(DESTDIR)$(nssdir)/libnss_q2q.so'
uninstall-hook:
	rm -f '$(DESTDIR)$(nssdir)'/libnss_q2q.so.2*
