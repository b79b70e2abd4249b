# stun: RFC 8489 Binding. Sans-IO
noinst_HEADERS += src/stun/stun.h
