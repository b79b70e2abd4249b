# unit tests of src/tun
