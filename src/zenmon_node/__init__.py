"""ZenMonitor and syn on an Erlang node written in Python."""
