# ptcp: PTCP/2, the transport; sans-IO
noinst_LTLIBRARIES += src/ptcp/libptcp.la
src_ptcp_libptcp_la_SOURCES = \
	src/ptcp/ack.c \
	src/ptcp/ack.h \
	src/ptcp/assoc.c \
	src/ptcp/assoc.h \
	src/ptcp/cc.c \
	src/ptcp/cc.h \
	src/ptcp/cc_bbr.c \
	src/ptcp/cc_cubic.c \
	src/ptcp/frames.c \
	src/ptcp/frames.h \
	src/ptcp/handshake.c \
	src/ptcp/input.c \
	src/ptcp/keys.c \
	src/ptcp/memory.c \
	src/ptcp/memory.h \
	src/ptcp/output.c \
	src/ptcp/pacer.c \
	src/ptcp/pacer.h \
	src/ptcp/packet.c \
	src/ptcp/packet.h \
	src/ptcp/parity.h \
	src/ptcp/parity_code.c \
	src/ptcp/parity_code.h \
	src/ptcp/parity_receive.c \
	src/ptcp/parity_send.c \
	src/ptcp/path.c \
	src/ptcp/pmtu.c \
	src/ptcp/pool.c \
	src/ptcp/pool.h \
	src/ptcp/ptcp.h \
	src/ptcp/queue.c \
	src/ptcp/queue.h \
	src/ptcp/receive.c \
	src/ptcp/recovery.c \
	src/ptcp/replay.c \
	src/ptcp/replay.h \
	src/ptcp/rtt.c \
	src/ptcp/rtt.h \
	src/ptcp/send.c \
	src/ptcp/sent.c \
	src/ptcp/sent.h
src_ptcp_libptcp_la_LIBADD = $(ISAL_LIBS)
include src/ptcp/conn.mk
