# Checks of the tree itself
STRUCTURE_TESTS = \
	tests/structure/configure.sh \
	tests/structure/layers.sh \
	tests/structure/manual.sh \
	tests/structure/sans_io.sh \
	tests/structure/systemd.sh \
	tests/structure/banned_calls.sh
dist_check_SCRIPTS += $(STRUCTURE_TESTS)
TESTS += $(STRUCTURE_TESTS)
