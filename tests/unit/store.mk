# unit tests of src/store
if ENABLE_SERVER
check_PROGRAMS += tests/unit/test_store
TESTS += tests/unit/test_store
tests_unit_test_store_SOURCES = tests/unit/test_store.c
tests_unit_test_store_LDADD = src/store/libstore.la src/crypto/libcrypto.la src/base/libbase.la \
	$(SQLITE_LIBS) $(CMOCKA_LIBS)
endif
