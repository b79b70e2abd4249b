# server: see doc/architecture.md
