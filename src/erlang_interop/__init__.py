"""The Erlang distribution protocol for Python: terms, codec, wire, node and behaviours."""
