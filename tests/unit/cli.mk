# tests of src/cli
TESTS += tests/unit/cli.sh
dist_check_SCRIPTS += tests/unit/cli.sh
EXTRA_DIST += tests/unit/cli.py tests/unit/tap.py
