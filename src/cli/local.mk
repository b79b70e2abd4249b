# cli: see doc/architecture.md
