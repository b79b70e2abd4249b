# cli: the users' command line
bin_PROGRAMS += src/cli/q2q-tun
src_cli_q2q_tun_SOURCES = \
	src/cli/cli.h \
	src/cli/client.c \
	src/cli/commands.c \
	src/cli/doctor.c \
	src/cli/doctor_bundle.c \
	src/cli/doctor_firewall.c \
	src/cli/main.c \
	src/cli/prompt.c \
	src/cli/show.c
src_cli_q2q_tun_LDFLAGS = $(AM_LDFLAGS) $(Q2Q_PIE_LDFLAGS)
src_cli_q2q_tun_LDADD = src/base/libbase.la $(JANSSON_LIBS) $(SMARTCOLS_LIBS)
