"""Terms to bytes and back: the external term format (ERTS user guide, erl_ext_dist)."""
