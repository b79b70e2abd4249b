# net: the loop, sockets, resolver. libevent and c-ares live here
noinst_LTLIBRARIES += src/net/libnet.la
src_net_libnet_la_SOURCES = \
	src/net/net.h \
	src/net/internal.h \
	src/net/addresses.c \
	src/net/lanes.c \
	src/net/line.c \
	src/net/loop.c \
	src/net/mailbox.c \
	src/net/nat64.c \
	src/net/outer.c \
	src/net/outer.h \
	src/net/q2q.c \
	src/net/resolver.c \
	src/net/socket.c \
	src/net/tcp.c \
	src/net/udp.c
src_net_libnet_la_LIBADD = $(LIBEVENT_LIBS) $(CARES_LIBS)
