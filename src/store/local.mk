# store: accounts of the identity server
noinst_HEADERS += src/store/store.h
if ENABLE_SERVER
noinst_LTLIBRARIES += src/store/libstore.la
src_store_libstore_la_SOURCES = \
	src/store/private.h \
	src/store/database.c \
	src/store/query.c \
	src/store/records.c
src_store_libstore_la_LIBADD = $(SQLITE_LIBS)
endif
