# upnp: q2q-tun-upnp, a process of its own for libminiupnpc, which lives here alone
noinst_LTLIBRARIES += src/upnp/libupnp.la
src_upnp_libupnp_la_SOURCES = \
	src/upnp/ssdp.c \
	src/upnp/upnp.h

if WITH_MINIUPNPC
pkglibexec_PROGRAMS += src/upnp/q2q-tun-upnp
src_upnp_q2q_tun_upnp_SOURCES = \
	src/upnp/igd.c \
	src/upnp/main.c \
	src/upnp/sandbox.c
src_upnp_q2q_tun_upnp_LDFLAGS = $(AM_LDFLAGS) $(Q2Q_PIE_LDFLAGS)
src_upnp_q2q_tun_upnp_LDADD = src/upnp/libupnp.la src/base/libbase.la $(MINIUPNPC_LIBS) \
	$(LIBSECCOMP_LIBS)
endif
