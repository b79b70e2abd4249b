# Section 1: commands, 5: files, 8: daemons
dist_man_MANS += man/q2q-tun.1
