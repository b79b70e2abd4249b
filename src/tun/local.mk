# tun: devices, links, packets
noinst_HEADERS += src/tun/tun.h
