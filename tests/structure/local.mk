# tests/structure
