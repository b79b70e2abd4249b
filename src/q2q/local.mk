# q2q: addresses, commands, the control connection
noinst_LTLIBRARIES += src/q2q/libq2q.la
src_q2q_libq2q_la_SOURCES = \
	src/q2q/address.c \
	src/q2q/calls.c \
	src/q2q/channel.c \
	src/q2q/classic.c \
	src/q2q/command.c \
	src/q2q/command.h \
	src/q2q/conn.c \
	src/q2q/conn.h \
	src/q2q/q2q.h \
	src/q2q/secure.c \
	src/q2q/virtual.c
