# stun: see doc/architecture.md
