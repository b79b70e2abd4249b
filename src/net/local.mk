# net: see doc/architecture.md
