"""How fast and how large the gateway is, always beside something that anybody can judge."""
