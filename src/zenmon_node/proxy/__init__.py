"""The Proxy: monitors processes of this node on behalf of other nodes' Locals, and reports deaths in batches."""
