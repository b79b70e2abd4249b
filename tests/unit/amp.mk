# unit tests of src/amp
check_PROGRAMS += tests/unit/test_amp
TESTS += tests/unit/test_amp
tests_unit_test_amp_SOURCES = tests/unit/test_amp.c tests/unit/vectors.c tests/unit/vectors.h
tests_unit_test_amp_LDADD = src/amp/libamp.la src/base/libbase.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
EXTRA_DIST += tests/vectors/q2q
