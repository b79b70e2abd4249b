# unit tests of src/relay
