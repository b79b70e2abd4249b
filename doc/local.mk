# Documents for readers of the source
EXTRA_DIST += doc/architecture.md
EXTRA_DIST += doc/nat.md
EXTRA_DIST += doc/sealed.md
