# crypto: the one home of OpenSSL
noinst_HEADERS += src/crypto/crypto.h
