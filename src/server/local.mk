# server: the identity server, q2q-server
if ENABLE_SERVER
noinst_LTLIBRARIES += src/server/libserver.la
src_server_libserver_la_SOURCES = \
	src/server/account.c \
	src/server/admin.c \
	src/server/admin.h \
	src/server/admin_client.c \
	src/server/client.c \
	src/server/commands.c \
	src/server/commands.h \
	src/server/domain.c \
	src/server/domain.h \
	src/server/federation.c \
	src/server/hasher.c \
	src/server/hasher.h \
	src/server/inquiry.c \
	src/server/limiter.c \
	src/server/limiter.h \
	src/server/options.c \
	src/server/options.h \
	src/server/password.c \
	src/server/policy.c \
	src/server/policy.h \
	src/server/privileges.c \
	src/server/privileges.h \
	src/server/run.c \
	src/server/server.h \
	src/server/state.h \
	src/server/udp.c
src_server_libserver_la_LIBADD = $(LIBCAPNG_LIBS) $(JANSSON_LIBS) $(SMARTCOLS_LIBS) -lpthread

bin_PROGRAMS += src/server/q2q-server
src_server_q2q_server_SOURCES = src/server/main.c
src_server_q2q_server_LDFLAGS = $(AM_LDFLAGS) $(Q2Q_PIE_LDFLAGS)
src_server_q2q_server_LDADD = src/server/libserver.la src/relay/librelay.la src/store/libstore.la \
	src/net/libnet.la src/q2q/libq2q.la src/amp/libamp.la src/stun/libstun.la \
	src/crypto/libcrypto.la src/conf/libconf.la src/base/libbase.la
endif
