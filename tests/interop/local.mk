# tests/interop
include tests/interop/server.mk
