"""The node on trio: sockets, the connection table, processes and the routing between them."""
