"""How fast this node is against a BEAM: the same driver sends its load to either, in the same run (``make bench``)."""
