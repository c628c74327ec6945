"""Why something was not carried to whom it was for: three reasons, because three things follow.

Every way by which people are told raises these and no others. Texts say why, for operators; there
are no secrets in them.
"""

from __future__ import annotations


class Undeliverable(Exception):
    """This will never reach this address."""


class NotNow(Exception):
    """This could not be left just now; other things may be."""


class CarrierAway(Exception):
    """Nothing can be left at present: the server is away, or does not let us in."""
