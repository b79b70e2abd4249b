# End-to-end tests: real programs in namespaces. They run what `make install`
# installs, from tests/netns/root.
NETNS_TESTS = \
	tests/netns/control.sh \
	tests/netns/federation.sh \
	tests/netns/relay.sh \
	tests/netns/resilience.sh \
	tests/netns/smoke.sh \
	tests/netns/systemd.sh \
	tests/netns/trust.sh \
	tests/netns/tunnel.sh
dist_check_SCRIPTS += $(NETNS_TESTS)
EXTRA_DIST += tests/netns/lab.sh tests/netns/tap.sh tests/netns/tunnel_lab.sh
if ENABLE_SERVER
TESTS += $(NETNS_TESTS)
check_DATA += tests/netns/root.stamp
endif
CLEANFILES += tests/netns/root.stamp

# A prefix of its own choosing would not be where the lab looks.
tests/netns/root.stamp: $(bin_PROGRAMS) $(sbin_PROGRAMS) $(nss_LTLIBRARIES)
	$(AM_V_GEN)rm -rf tests/netns/root && $(MKDIR_P) tests/netns/root && \
	env -u MAKEFLAGS $(MAKE) -s install DESTDIR='$(abs_top_builddir)/tests/netns/root' \
		prefix=/usr/local exec_prefix=/usr/local sysconfdir=/etc localstatedir=/var \
		>tests/netns/install.log 2>&1 && touch $@
clean-local:
	rm -rf tests/netns/root
include tests/netns/punch.mk
