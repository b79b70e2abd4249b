# q2q: see doc/architecture.md
