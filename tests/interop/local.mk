# tests/interop
include tests/interop/server.mk
include tests/interop/q2q.mk
