# daemon: all protocol work of q2q-tund, without privileges; main() is the monitor's
noinst_LTLIBRARIES += src/daemon/libdaemon.la
src_daemon_libdaemon_la_SOURCES = \
	src/daemon/daemon.h \
	src/daemon/internal.h \
	src/daemon/ask.c \
	src/daemon/channel.c \
	src/daemon/commands_identity.c \
	src/daemon/commands_links.c \
	src/daemon/commands_trust.c \
	src/daemon/commands_watch.c \
	src/daemon/control.c \
	src/daemon/device.c \
	src/daemon/disk.c \
	src/daemon/disk.h \
	src/daemon/doctor.c \
	src/daemon/domains.c \
	src/daemon/domains.h \
	src/daemon/enroll.c \
	src/daemon/files.c \
	src/daemon/files.h \
	src/daemon/gather.c \
	src/daemon/hub.c \
	src/daemon/identities.c \
	src/daemon/identities.h \
	src/daemon/inbound.c \
	src/daemon/index.c \
	src/daemon/links.c \
	src/daemon/logring.c \
	src/daemon/names.c \
	src/daemon/nat64.c \
	src/daemon/options.c \
	src/daemon/peers.c \
	src/daemon/lifetime.c \
	src/daemon/portmap.c \
	src/daemon/problem.c \
	src/daemon/reload.c \
	src/daemon/renew.c \
	src/daemon/requests.c \
	src/daemon/serverlink.c \
	src/daemon/status.c \
	src/daemon/streams.c \
	src/daemon/udp.c \
	src/daemon/upkeep.c \
	src/daemon/volley.c \
	src/daemon/workers.c

sbin_PROGRAMS += src/daemon/q2q-tund
src_daemon_q2q_tund_SOURCES = src/daemon/daemon.c
src_daemon_q2q_tund_LDFLAGS = $(AM_LDFLAGS) $(Q2Q_PIE_LDFLAGS)
src_daemon_q2q_tund_LDADD = src/monitor/libmonitor.la src/daemon/libdaemon.la src/ctl/libctl.la \
	src/session/libsession.la src/net/libnet.la src/q2q/libq2q.la src/amp/libamp.la \
	src/nat/libnat.la src/stun/libstun.la src/ptcp/libptcp.la src/tun/libtun.la \
	src/crypto/libcrypto.la src/conf/libconf.la src/base/libbase.la $(JANSSON_LIBS) \
	$(OPENSSL_LIBS)
