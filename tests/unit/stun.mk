# unit tests of src/stun
