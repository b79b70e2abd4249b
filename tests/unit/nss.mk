# tests of src/nss
TESTS += tests/unit/nss.sh
dist_check_SCRIPTS += tests/unit/nss.sh
EXTRA_DIST += tests/unit/nss.py
