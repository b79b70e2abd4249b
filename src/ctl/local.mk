# ctl: see doc/architecture.md
