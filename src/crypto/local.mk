# crypto: see doc/architecture.md
