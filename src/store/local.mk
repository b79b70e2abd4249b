# store: accounts of the identity server
noinst_HEADERS += src/store/store.h
