# ptcp: PTCP/2, the transport; sans-IO
noinst_LTLIBRARIES += src/ptcp/libptcp.la
src_ptcp_libptcp_la_SOURCES = \
	src/ptcp/ptcp.h
include src/ptcp/conn.mk
