# base: libc only
noinst_LTLIBRARIES += src/base/libbase.la
src_base_libbase_la_SOURCES = \
	src/base/names.c \
	src/base/names.h \
	src/base/notify.c \
	src/base/base.h \
	src/base/bytes.c \
	src/base/endpoint.c \
	src/base/footprint.c \
	src/base/log.c \
	src/base/text.c
