"""Behaviours of OTP on the node: gen_server, supervisor and the services every node answers."""
