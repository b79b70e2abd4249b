# nat: candidates and punching for one peer link. Sans-IO
noinst_HEADERS += src/nat/nat.h
