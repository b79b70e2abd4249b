# One harness per parser: tests/fuzz/fuzz_NAME.c. Pattern for tests/fuzz/NAME.mk:
#
#   check_PROGRAMS += tests/fuzz/fuzz_NAME
#   FUZZ_HARNESSES += tests/fuzz/fuzz_NAME
#   tests_fuzz_fuzz_NAME_SOURCES = tests/fuzz/fuzz_NAME.c $(FUZZ_MAIN)
#   tests_fuzz_fuzz_NAME_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
#   tests_fuzz_fuzz_NAME_LDADD = src/NAME/libNAME.la src/base/libbase.la
#
# Without --enable-fuzzing each harness is a program that replays its corpus,
# tests/fuzz/corpus/NAME/, in `make check`.
FUZZ_HARNESSES =
if ENABLE_FUZZING
FUZZ_MAIN =
FUZZ_LDFLAGS = -fsanitize=fuzzer
else
FUZZ_MAIN = tests/fuzz/replay_main.c
FUZZ_LDFLAGS =
TESTS += tests/fuzz/replay.sh
endif
dist_check_SCRIPTS += tests/fuzz/replay.sh
EXTRA_DIST += tests/fuzz/replay_main.c tests/fuzz/corpus
AM_TESTS_ENVIRONMENT += FUZZ_HARNESSES='$(FUZZ_HARNESSES)'; export FUZZ_HARNESSES;
include tests/fuzz/names.mk
include tests/fuzz/conf.mk
include tests/fuzz/stun.mk
include tests/fuzz/ptcp_conn.mk
include tests/fuzz/nat.mk
include tests/fuzz/crypto.mk
include tests/fuzz/amp.mk
include tests/fuzz/q2q.mk
include tests/fuzz/ptcp.mk
include tests/fuzz/session.mk
include tests/fuzz/packet.mk
include tests/fuzz/upnp.mk
