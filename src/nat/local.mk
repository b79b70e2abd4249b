# nat: see doc/architecture.md
