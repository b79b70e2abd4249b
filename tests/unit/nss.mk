# tests of src/nss and of the protocol under it
check_PROGRAMS += tests/unit/test_names tests/unit/test_nss
TESTS += tests/unit/test_names tests/unit/test_nss tests/unit/nss.sh
dist_check_SCRIPTS += tests/unit/nss.sh
EXTRA_DIST += tests/unit/nss.py
tests_unit_test_names_SOURCES = tests/unit/test_names.c
tests_unit_test_names_LDADD = src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_nss_SOURCES = tests/unit/test_nss.c
tests_unit_test_nss_LDADD = src/base/libbase.la $(CMOCKA_LIBS)
