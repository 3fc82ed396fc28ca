"""syn: scopes of registered names and process groups, shared with genuine ``syn`` nodes of version 3."""
