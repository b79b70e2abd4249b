EXTRA_DIST += autogen.sh contrib/common.sh contrib/bench contrib/check contrib/demo contrib/fuzz contrib/nat-matrix contrib/wan-try \
	contrib/completion/q2q-tun.bash

bashcompletion_DATA = contrib/completion/q2q-tun
CLEANFILES += contrib/completion/q2q-tun
contrib/completion/q2q-tun: contrib/completion/q2q-tun.bash
	$(AM_V_GEN)$(MKDIR_P) contrib/completion && cp $(srcdir)/contrib/completion/q2q-tun.bash $@

# Every key of the daemon with its default
examplesdir = $(datadir)/doc/q2q-tun/examples
dist_examples_DATA = contrib/q2q-tun.conf
