# ptcp: see doc/architecture.md
