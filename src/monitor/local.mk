# monitor: see doc/architecture.md
