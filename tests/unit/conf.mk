# unit tests of src/conf
check_PROGRAMS += tests/unit/test_conf
TESTS += tests/unit/test_conf
tests_unit_test_conf_SOURCES = tests/unit/test_conf.c
tests_unit_test_conf_LDADD = src/conf/libconf.la src/base/libbase.la $(CMOCKA_LIBS)
