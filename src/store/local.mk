# store: see doc/architecture.md
