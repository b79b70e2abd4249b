# unit tests of src/stun
check_PROGRAMS += tests/unit/test_stun
TESTS += tests/unit/test_stun
tests_unit_test_stun_SOURCES = tests/unit/test_stun.c
tests_unit_test_stun_LDADD = src/stun/libstun.la src/base/libbase.la $(CMOCKA_LIBS)
