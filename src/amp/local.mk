# amp: see doc/architecture.md
