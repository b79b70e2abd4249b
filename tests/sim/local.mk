# tests/sim: associations on a virtual network
SIM_SOURCES = \
	tests/sim/chance.c \
	tests/sim/cipher.c \
	tests/sim/memory.c \
	tests/sim/messages.c \
	tests/sim/net.c \
	tests/sim/sim.h \
	tests/sim/streams.c \
	tests/sim/world.c \
	tests/unit/wrapped_memory.h
SIMULATOR_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free
SIM_LIBS = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/sim/sim_seeds
TESTS += tests/sim/sim_seeds
tests_sim_sim_seeds_SOURCES = tests/sim/sim_seeds.c tests/sim/chaos.c $(SIM_SOURCES)
tests_sim_sim_seeds_CPPFLAGS = $(AM_CPPFLAGS) \
	-DSIM_REGRESSIONS='"$(abs_top_srcdir)/tests/sim/regressions.txt"'
tests_sim_sim_seeds_LDFLAGS = $(SIMULATOR_LDFLAGS)
tests_sim_sim_seeds_LDADD = $(SIM_LIBS)
check_PROGRAMS += tests/sim/sim_scenarios
TESTS += tests/sim/sim_scenarios
tests_sim_sim_scenarios_SOURCES = tests/sim/sim_scenarios.c $(SIM_SOURCES)
tests_sim_sim_scenarios_LDFLAGS = $(SIMULATOR_LDFLAGS)
tests_sim_sim_scenarios_LDADD = $(SIM_LIBS)
EXTRA_DIST += tests/sim/regressions.txt
check_PROGRAMS += tests/sim/sim_links
TESTS += tests/sim/sim_links
tests_sim_sim_links_SOURCES = \
	tests/sim/rig.c \
	tests/sim/rig.h \
	tests/sim/rig_tcp.c \
	tests/sim/sim_links.c
tests_sim_sim_links_LDADD = $(SIM_LIBS) -lm
