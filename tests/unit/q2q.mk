# unit tests of src/q2q
