# daemon: see doc/architecture.md
noinst_HEADERS += src/daemon/daemon.h
