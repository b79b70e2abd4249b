EXTRA_DIST += contrib/common.sh contrib/check contrib/demo autogen.sh
