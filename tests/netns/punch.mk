# Real sockets and the kernel's NATs, without the programs
check_PROGRAMS += tests/netns/punch
dist_check_SCRIPTS += tests/netns/punch.sh
TESTS += tests/netns/punch.sh
tests_netns_punch_SOURCES = tests/netns/punch.c
tests_netns_punch_LDADD = src/net/libnet.la src/nat/libnat.la src/stun/libstun.la \
	src/base/libbase.la

# The distance between the hosts of nat_lab.sh
noinst_PROGRAMS += tests/netns/delay
tests_netns_delay_SOURCES = tests/netns/delay.c
tests_netns_delay_LDADD = src/base/libbase.la

# A clock that is wrong, for nat.sh. A library to preload; -rpath makes libtool build it so.
check_LTLIBRARIES = tests/netns/ahead.la
tests_netns_ahead_la_SOURCES = tests/netns/ahead.c
tests_netns_ahead_la_CFLAGS = $(AM_CFLAGS) -fvisibility=default -fno-sanitize=all
tests_netns_ahead_la_LDFLAGS = -module -avoid-version -shared -rpath $(abs_builddir)
