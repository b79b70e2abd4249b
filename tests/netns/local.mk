# End-to-end tests: real programs in namespaces. They run what `make install`
# installs, from tests/netns/root.
NETNS_TESTS = \
	tests/netns/candidates.sh \
	tests/netns/control.sh \
	tests/netns/disable.sh \
	tests/netns/ecn.sh \
	tests/netns/federation.sh \
	tests/netns/federation_443.sh \
	tests/netns/glare.sh \
	tests/netns/guard.sh \
	tests/netns/hardship.sh \
	tests/netns/keepalive.sh \
	tests/netns/many.sh \
	tests/netns/mtu.sh \
	tests/netns/nat.sh \
	tests/netns/nat_kinds.sh \
	tests/netns/portmap.sh \
	tests/netns/portmap_others.sh \
	tests/netns/relay.sh \
	tests/netns/reload.sh \
	tests/netns/renew.sh \
	tests/netns/resilience.sh \
	tests/netns/roam.sh \
	tests/netns/six.sh \
	tests/netns/smoke.sh \
	tests/netns/stun.sh \
	tests/netns/systemd.sh \
	tests/netns/tls443.sh \
	tests/netns/trust.sh \
	tests/netns/tunnel.sh \
	tests/netns/twisted.sh \
	tests/netns/upnp.sh \
	tests/netns/workers.sh
dist_check_SCRIPTS += $(NETNS_TESTS)
EXTRA_DIST += tests/netns/federation_lab.sh tests/netns/igd.py tests/netns/lab.sh tests/netns/nat_classify.py tests/netns/nat_lab.sh \
	tests/netns/nat_measure.py tests/netns/nat_report.py tests/netns/portmap_lab.sh tests/netns/stun_liar.py tests/netns/tap.sh \
	tests/netns/roam_gap.py tests/netns/tunnel_lab.sh tests/netns/workers_copy.py
if ENABLE_SERVER
TESTS += $(NETNS_TESTS)
check_DATA += tests/netns/root.stamp
endif
CLEANFILES += tests/netns/root.stamp tests/netns/install.log

# Another prefix would not be where the lab looks; units have the one of configure written into them.
tests/netns/root.stamp: $(bin_PROGRAMS) $(sbin_PROGRAMS) $(pkglibexec_PROGRAMS) $(nss_LTLIBRARIES)
	$(AM_V_GEN)rm -rf tests/netns/root && $(MKDIR_P) tests/netns/root && \
	env -u MAKEFLAGS $(MAKE) -s install DESTDIR='$(abs_top_builddir)/tests/netns/root' \
		prefix=/usr/local exec_prefix=/usr/local sysconfdir=/etc localstatedir=/var \
		>tests/netns/install.log 2>&1 && \
	sed -i -e 's,=$(sbindir)/,=/usr/local/sbin/,' -e 's,=$(bindir)/,=/usr/local/bin/,' \
		tests/netns/root/usr/local/lib/systemd/system/*.service && touch $@
clean-local:
	rm -rf tests/netns/root
include tests/netns/punch.mk
