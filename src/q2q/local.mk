# q2q: addresses, commands, the control connection
noinst_HEADERS += src/q2q/q2q.h
