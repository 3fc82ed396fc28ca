"""Tools for tests that need an Erlang peer: ours use them, and so may yours."""
