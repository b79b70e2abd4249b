# unit tests of src/q2q
Q2Q_TEST_LIBS = src/q2q/libq2q.la src/amp/libamp.la src/crypto/libcrypto.la src/base/libbase.la \
	$(JANSSON_LIBS) $(OPENSSL_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_q2q_text tests/unit/test_q2q_conn tests/unit/test_q2q_classic
TESTS += tests/unit/test_q2q_text tests/unit/test_q2q_conn tests/unit/test_q2q_classic
tests_unit_test_q2q_text_SOURCES = tests/unit/test_q2q_text.c tests/unit/vectors.c \
	tests/unit/vectors.h
tests_unit_test_q2q_text_LDADD = $(Q2Q_TEST_LIBS)
tests_unit_test_q2q_conn_SOURCES = tests/unit/test_q2q_conn.c tests/unit/q2q_script.c \
	tests/unit/q2q_script.h tests/unit/vectors.c tests/unit/vectors.h
tests_unit_test_q2q_conn_LDADD = $(Q2Q_TEST_LIBS)
tests_unit_test_q2q_classic_SOURCES = tests/unit/test_q2q_classic.c tests/unit/vectors.c \
	tests/unit/vectors.h
tests_unit_test_q2q_classic_LDADD = $(Q2Q_TEST_LIBS)
check_PROGRAMS += tests/unit/test_q2q_memory
TESTS += tests/unit/test_q2q_memory
tests_unit_test_q2q_memory_SOURCES = tests/unit/test_q2q_memory.c tests/unit/q2q_script.c \
	tests/unit/q2q_script.h tests/unit/vectors.c tests/unit/vectors.h tests/unit/wrapped_memory.h
tests_unit_test_q2q_memory_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc
tests_unit_test_q2q_memory_LDADD = $(Q2Q_TEST_LIBS)
