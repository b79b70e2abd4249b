# unit tests of src/ctl
