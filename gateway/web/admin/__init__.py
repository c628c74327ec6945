"""The admin API: who may spend what, asked and changed by operators over HTTP.

Loopback by default. Everything that goes in and out stands in its table of routes; who asks is
proven before anything else is looked at.
"""

from gateway.web.admin.app import Guard, admin_app

__all__ = ["Guard", "admin_app"]
