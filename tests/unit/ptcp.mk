# unit tests of src/ptcp
check_PROGRAMS += tests/unit/test_ptcp_assoc
TESTS += tests/unit/test_ptcp_assoc
tests_unit_test_ptcp_assoc_SOURCES = tests/unit/test_ptcp_assoc.c tests/unit/ptcp_pair.c \
	tests/unit/ptcp_pair.h tests/unit/ptcp_stream.h
tests_unit_test_ptcp_assoc_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_ptcp_paths
TESTS += tests/unit/test_ptcp_paths
tests_unit_test_ptcp_paths_SOURCES = tests/unit/test_ptcp_paths.c tests/unit/ptcp_pair.c \
	tests/unit/ptcp_pair.h tests/unit/ptcp_stream.h
tests_unit_test_ptcp_paths_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_ptcp_parts
TESTS += tests/unit/test_ptcp_parts
tests_unit_test_ptcp_parts_SOURCES = tests/unit/test_ptcp_parts.c
tests_unit_test_ptcp_parts_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_ptcp_parity
TESTS += tests/unit/test_ptcp_parity
tests_unit_test_ptcp_parity_SOURCES = tests/unit/test_ptcp_parity.c tests/unit/ptcp_pair.c \
	tests/unit/ptcp_pair.h
tests_unit_test_ptcp_parity_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_ptcp_messages
TESTS += tests/unit/test_ptcp_messages
tests_unit_test_ptcp_messages_SOURCES = tests/unit/test_ptcp_messages.c tests/unit/ptcp_pair.c \
	tests/unit/ptcp_pair.h
tests_unit_test_ptcp_messages_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/test_ptcp_parity_wire
TESTS += tests/unit/test_ptcp_parity_wire
tests_unit_test_ptcp_parity_wire_SOURCES = tests/unit/test_ptcp_parity_wire.c \
	tests/unit/ptcp_pair.c tests/unit/ptcp_pair.h tests/unit/wrapped_memory.h
tests_unit_test_ptcp_parity_wire_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc \
	-Wl,--wrap=realloc,--wrap=free
tests_unit_test_ptcp_parity_wire_LDADD = src/ptcp/libptcp.la src/base/libbase.la $(CMOCKA_LIBS)
