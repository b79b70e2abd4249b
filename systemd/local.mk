# Units, users, and other managers' orders to keep their hands off q2q-* interfaces
sysusersdir = $(prefix)/lib/sysusers.d
tmpfilesdir = $(prefix)/lib/tmpfiles.d
networkddir = $(prefix)/lib/systemd/network
nmconfdir = $(prefix)/lib/NetworkManager/conf.d

UNITS = systemd/q2q-tun.service systemd/q2q-tun@.service
SYSTEMD_SOURCES = \
	systemd/80-q2q-tun.network systemd/80-q2q-tun.nm.conf \
	systemd/q2q-server.service.in systemd/q2q-server.sysusers systemd/q2q-server.tmpfiles \
	systemd/q2q-tun.service.in systemd/q2q-tun.sysusers systemd/q2q-tun.tmpfiles \
	systemd/q2q-tun@.service.in
if ENABLE_SERVER
UNITS += systemd/q2q-server.service
endif
EXTRA_DIST += $(SYSTEMD_SOURCES)
systemdsystemunit_DATA = $(UNITS)
CLEANFILES += $(UNITS)

$(UNITS): Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd && \
	sed -e 's,[@]bindir[@],$(bindir),g' -e 's,[@]sbindir[@],$(sbindir),g' \
		'$(srcdir)/$@.in' >$@.tmp && mv $@.tmp $@
systemd/q2q-tun.service: $(srcdir)/systemd/q2q-tun.service.in
systemd/q2q-tun@.service: $(srcdir)/systemd/q2q-tun@.service.in
systemd/q2q-server.service: $(srcdir)/systemd/q2q-server.service.in

# The names that these folders want are not the names that a source tree wants.
install-exec-local:
	$(MKDIR_P) '$(DESTDIR)$(sysusersdir)' '$(DESTDIR)$(tmpfilesdir)' '$(DESTDIR)$(networkddir)' \
		'$(DESTDIR)$(nmconfdir)'
	$(INSTALL_DATA) '$(srcdir)/systemd/q2q-tun.sysusers' '$(DESTDIR)$(sysusersdir)/q2q-tun.conf'
	$(INSTALL_DATA) '$(srcdir)/systemd/q2q-tun.tmpfiles' '$(DESTDIR)$(tmpfilesdir)/q2q-tun.conf'
if ENABLE_SERVER
	$(INSTALL_DATA) '$(srcdir)/systemd/q2q-server.sysusers' '$(DESTDIR)$(sysusersdir)/q2q-server.conf'
	$(INSTALL_DATA) '$(srcdir)/systemd/q2q-server.tmpfiles' '$(DESTDIR)$(tmpfilesdir)/q2q-server.conf'
endif
	$(INSTALL_DATA) '$(srcdir)/systemd/80-q2q-tun.network' '$(DESTDIR)$(networkddir)/80-q2q-tun.network'
	$(INSTALL_DATA) '$(srcdir)/systemd/80-q2q-tun.nm.conf' '$(DESTDIR)$(nmconfdir)/80-q2q-tun.conf'
uninstall-local:
	rm -f '$(DESTDIR)$(sysusersdir)/q2q-tun.conf' '$(DESTDIR)$(sysusersdir)/q2q-server.conf' \
		'$(DESTDIR)$(tmpfilesdir)/q2q-tun.conf' '$(DESTDIR)$(tmpfilesdir)/q2q-server.conf' \
		'$(DESTDIR)$(networkddir)/80-q2q-tun.network' '$(DESTDIR)$(nmconfdir)/80-q2q-tun.conf'
