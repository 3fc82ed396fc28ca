"""Links, monitors, aliases and exits between two nodes: a model, and how scripts are played against it."""
