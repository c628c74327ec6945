"""HTTP as clients and operators see it. What a request means is decided in `flow`."""
