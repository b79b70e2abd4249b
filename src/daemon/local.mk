# daemon: see doc/architecture.md
