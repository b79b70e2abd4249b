# unit tests of src/monitor
