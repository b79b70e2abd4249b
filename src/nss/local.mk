# nss: see doc/architecture.md
