"""Work beside the requests: draining the outbox, ending lapsed holds, projecting entitlements.

Each is a service with the same life: `run` until cancelled; safe to stop at any await, because
everything it does may be done again.
"""
