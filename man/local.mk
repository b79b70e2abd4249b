# Section 1: commands, 5: files, 8: daemons
dist_man_MANS += man/q2q-tun.1 man/q2q-tun.conf.5 man/q2q-tund.8
if ENABLE_SERVER
dist_man_MANS += man/q2q-server.8
else
EXTRA_DIST += man/q2q-server.8
endif
