# tun: devices, links, packets. libnl lives here
noinst_LTLIBRARIES += src/tun/libtun.la
src_tun_libtun_la_SOURCES = \
	src/tun/device.c \
	src/tun/guard.c \
	src/tun/ipc.c \
	src/tun/link.c \
	src/tun/packet.c \
	src/tun/packet_rewrite.c \
	src/tun/packet_segment.c \
	src/tun/packet_signal.c \
	src/tun/tun.h \
	src/tun/wire.c \
	src/tun/wire.h
src_tun_libtun_la_LIBADD = $(LIBNL_LIBS)
