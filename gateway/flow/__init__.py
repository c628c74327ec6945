"""The life of one request, told through ports: read `exchange` first, then what it calls."""
