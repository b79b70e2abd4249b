# tests of src/monitor: its main() with a daemon that misbehaves on request
check_PROGRAMS += tests/unit/played_daemon tests/unit/test_monitor
TESTS += tests/unit/test_monitor tests/unit/monitor.sh tests/unit/notify.sh
dist_check_SCRIPTS += tests/unit/monitor.sh tests/unit/notify.sh
EXTRA_DIST += tests/unit/notify.py
tests_unit_played_daemon_SOURCES = tests/unit/played_daemon.c src/daemon/options.c
tests_unit_played_daemon_CPPFLAGS = $(AM_CPPFLAGS)
tests_unit_played_daemon_LDADD = src/monitor/libmonitor.la src/conf/libconf.la src/tun/libtun.la \
	src/base/libbase.la
tests_unit_test_monitor_SOURCES = tests/unit/test_monitor.c src/monitor/requests.c
tests_unit_test_monitor_CPPFLAGS = $(AM_CPPFLAGS)
tests_unit_test_monitor_LDADD = src/tun/libtun.la src/base/libbase.la $(CMOCKA_LIBS)
