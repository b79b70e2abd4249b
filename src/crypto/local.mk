# crypto: the one home of OpenSSL
noinst_LTLIBRARIES += src/crypto/libcrypto.la
src_crypto_libcrypto_la_SOURCES = \
	src/crypto/crypto.h \
	src/crypto/private.h \
	src/crypto/aead.c \
	src/crypto/aead_backend.h \
	src/crypto/aead_ipsec_mb.c \
	src/crypto/aead_openssl.c \
	src/crypto/cert.c \
	src/crypto/digest.c \
	src/crypto/issue.c \
	src/crypto/key.c \
	src/crypto/password.c \
	src/crypto/seal.c \
	src/crypto/tls.c \
	src/crypto/verify.c
src_crypto_libcrypto_la_LIBADD = $(OPENSSL_LIBS) $(IPSEC_MB_LIBS)
