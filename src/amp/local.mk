# amp: boxes, argument types, questions and answers
noinst_LTLIBRARIES += src/amp/libamp.la
src_amp_libamp_la_SOURCES = \
	src/amp/amp.h \
	src/amp/asks.c \
	src/amp/box.c \
	src/amp/reader.c \
	src/amp/types.c
