# the real server and a client in Python
if ENABLE_SERVER
TESTS += tests/interop/server.sh
endif
dist_check_SCRIPTS += tests/interop/server.sh
EXTRA_DIST += tests/interop/server_peer.py tests/interop/server_test.py
