"""Providers that collect money. Each is imported only where the configuration names it."""
