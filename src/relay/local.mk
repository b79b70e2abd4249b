# relay: presence, rendezvous and quotas of the server; sans-IO
noinst_LTLIBRARIES += src/relay/librelay.la
src_relay_librelay_la_SOURCES = \
	src/relay/channel.c \
	src/relay/internal.h \
	src/relay/relay.h \
	src/relay/relay.c
