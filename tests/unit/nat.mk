# unit tests of src/nat
check_PROGRAMS += tests/unit/test_nat tests/unit/test_nat_sim
TESTS += tests/unit/test_nat tests/unit/test_nat_sim
tests_unit_test_nat_SOURCES = tests/unit/test_nat.c tests/unit/nat_mac.h
tests_unit_test_nat_LDADD = src/nat/libnat.la src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_nat_sim_SOURCES = tests/unit/test_nat_sim.c tests/unit/nat_mac.h
tests_unit_test_nat_sim_LDADD = src/nat/libnat.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_nat_lifetime
TESTS += tests/unit/test_nat_lifetime
tests_unit_test_nat_lifetime_SOURCES = tests/unit/test_nat_lifetime.c
tests_unit_test_nat_lifetime_LDADD = src/nat/libnat.la src/base/libbase.la $(CMOCKA_LIBS)
