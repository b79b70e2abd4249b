# unit tests of src/nat
