# session: see doc/architecture.md
