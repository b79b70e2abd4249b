# relay: see doc/architecture.md
