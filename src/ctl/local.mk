# ctl: messages of the control socket; see doc/control.md
noinst_LTLIBRARIES += src/ctl/libctl.la
src_ctl_libctl_la_SOURCES = \
	src/ctl/ctl.h \
	src/ctl/commands.c \
	src/ctl/ctl_private.h \
	src/ctl/reply.c \
	src/ctl/request.c
src_ctl_libctl_la_LIBADD = $(JANSSON_LIBS)
