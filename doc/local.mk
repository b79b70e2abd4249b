# Documents for readers of the source
EXTRA_DIST += doc/architecture.md doc/performance.md
EXTRA_DIST += doc/nat.md doc/nat-matrix.md doc/nat-matrix-pairs.md
EXTRA_DIST += doc/ptcp-connections.md
EXTRA_DIST += doc/sealed.md
EXTRA_DIST += doc/q2q.md
EXTRA_DIST += doc/q2q-extensions.md
EXTRA_DIST += doc/ptcp.md
EXTRA_DIST += doc/security.md
EXTRA_DIST += doc/control.md
EXTRA_DIST += doc/session.md
