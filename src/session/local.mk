# session: one peer's link, and the virtual addresses; sans-IO
noinst_LTLIBRARIES += src/session/libsession.la
src_session_libsession_la_SOURCES = \
	src/session/session.h \
	src/session/internal.h \
	src/session/association.c \
	src/session/channel.c \
	src/session/keys.c \
	src/session/keys.h \
	src/session/offer.c \
	src/session/packets.c \
	src/session/paths.c \
	src/session/rendezvous.c \
	src/session/session.c \
	src/session/states.c \
	src/session/stream.c \
	src/session/stream.h \
	src/session/streams.c \
	src/session/vip.c
