# unit tests of src/nss and of the protocol under it
check_PROGRAMS += tests/unit/test_names
TESTS += tests/unit/test_names
tests_unit_test_names_SOURCES = tests/unit/test_names.c
tests_unit_test_names_LDADD = src/base/libbase.la $(CMOCKA_LIBS)
