# stun: RFC 8489 Binding. Sans-IO
noinst_LTLIBRARIES += src/stun/libstun.la
src_stun_libstun_la_SOURCES = \
	src/stun/stun.h \
	src/stun/client.c \
	src/stun/message.c
