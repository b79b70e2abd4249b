# tun: see doc/architecture.md
