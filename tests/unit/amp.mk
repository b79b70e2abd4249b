# unit tests of src/amp
