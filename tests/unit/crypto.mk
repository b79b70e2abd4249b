# unit tests of src/crypto
CRYPTO_TESTS = \
	tests/unit/test_crypto_aead \
	tests/unit/test_crypto_cert \
	tests/unit/test_crypto_digest \
	tests/unit/test_crypto_seal \
	tests/unit/test_crypto_tls
CRYPTO_TEST_LIBS = src/crypto/libcrypto.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += $(CRYPTO_TESTS)
TESTS += tests/unit/test_crypto_aead tests/unit/test_crypto_cert tests/unit/test_crypto_digest tests/unit/test_crypto_seal tests/unit/test_crypto_tls
tests_unit_test_crypto_aead_SOURCES = tests/unit/test_crypto_aead.c
tests_unit_test_crypto_aead_LDADD = $(CRYPTO_TEST_LIBS)
tests_unit_test_crypto_cert_SOURCES = tests/unit/test_crypto_cert.c tests/unit/forge.c tests/unit/forge.h
tests_unit_test_crypto_cert_LDADD = $(CRYPTO_TEST_LIBS)
tests_unit_test_crypto_digest_SOURCES = tests/unit/test_crypto_digest.c
tests_unit_test_crypto_digest_LDADD = $(CRYPTO_TEST_LIBS)
tests_unit_test_crypto_seal_SOURCES = tests/unit/test_crypto_seal.c
tests_unit_test_crypto_seal_LDADD = $(CRYPTO_TEST_LIBS)
tests_unit_test_crypto_tls_SOURCES = tests/unit/test_crypto_tls.c tests/unit/forge.c tests/unit/forge.h
tests_unit_test_crypto_tls_LDADD = $(CRYPTO_TEST_LIBS)
