# net: the loop, sockets, resolver. libevent and c-ares live here
noinst_HEADERS += src/net/net.h
