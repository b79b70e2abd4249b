# pseudo-connections
src_ptcp_libptcp_la_SOURCES += \
	src/ptcp/conn.h \
	src/ptcp/conn_glue.h \
	src/ptcp/conn_ranges.c \
	src/ptcp/conn_ranges.h \
	src/ptcp/conn_ring.c \
	src/ptcp/conn_ring.h
