# ptcp: see doc/architecture.md
noinst_LTLIBRARIES += src/ptcp/libptcp.la
src_ptcp_libptcp_la_SOURCES =
include src/ptcp/conn.mk
