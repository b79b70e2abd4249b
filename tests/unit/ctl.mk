# unit tests of src/ctl
check_PROGRAMS += tests/unit/test_ctl
TESTS += tests/unit/test_ctl
tests_unit_test_ctl_SOURCES = tests/unit/test_ctl.c
tests_unit_test_ctl_LDADD = src/ctl/libctl.la src/base/libbase.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
