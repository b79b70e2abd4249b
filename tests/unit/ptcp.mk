# unit tests of src/ptcp
