# conf: INI files by table. libinih lives here
noinst_LTLIBRARIES += src/conf/libconf.la
src_conf_libconf_la_SOURCES = \
	src/conf/conf.c \
	src/conf/conf.h
src_conf_libconf_la_LIBADD = $(INIH_LIBS)
