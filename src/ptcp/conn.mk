# pseudo-connections
src_ptcp_libptcp_la_SOURCES += \
	src/ptcp/conn.c \
	src/ptcp/conn.h \
	src/ptcp/conn_api.c \
	src/ptcp/conn_glue.h \
	src/ptcp/conn_private.h \
	src/ptcp/conn_ranges.c \
	src/ptcp/conn_ranges.h \
	src/ptcp/conn_recv.c \
	src/ptcp/conn_refuse.c \
	src/ptcp/conn_ring.c \
	src/ptcp/conn_ring.h \
	src/ptcp/conn_send.c \
	src/ptcp/conn_state.c \
	src/ptcp/conn_table.c
