# unit tests of src/nss
