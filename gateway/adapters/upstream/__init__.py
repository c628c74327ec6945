"""The Upstream port over HTTP: `open_upstream` in `opening` picks the adapter for each origin.

`direct` speaks HTTP/1.1 itself and is the rule; `session` is aiohttp's client, for origins that the
environment puts behind a proxy.
"""
