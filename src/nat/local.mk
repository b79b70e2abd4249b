# nat: candidates and punching for one peer link. Sans-IO
noinst_LTLIBRARIES += src/nat/libnat.la
src_nat_libnat_la_SOURCES = \
	src/nat/nat.h \
	src/nat/internal.h \
	src/nat/agent.c \
	src/nat/check.c \
	src/nat/guess.c \
	src/nat/lifetime.c \
	src/nat/policy.c \
	src/nat/portmap.c \
	src/nat/status.c \
	src/nat/wire.c
