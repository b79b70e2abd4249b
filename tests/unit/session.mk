# unit tests of src/session
