"""The tests: unit tests mirror the modules, interop tests are proved by a genuine BEAM."""
