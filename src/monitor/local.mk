# monitor: the privileged half of q2q-tund, and its main(). libcap-ng and libseccomp live here
noinst_LTLIBRARIES += src/monitor/libmonitor.la
src_monitor_libmonitor_la_SOURCES = \
	src/monitor/helper.c \
	src/monitor/main.c \
	src/monitor/monitor.h \
	src/monitor/privileges.c \
	src/monitor/requests.c \
	src/monitor/sandbox.c \
	src/monitor/watch.c
src_monitor_libmonitor_la_LIBADD = $(LIBCAPNG_LIBS) $(LIBSECCOMP_LIBS)
