"""The log lines of decisions: one of each call that was let through, or refused.

Whoever wants lines enables a logger, so that a call whose line nobody wants costs one look at a
flag. Figures for operators are the metrics; these lines are for finding one call again.
"""

from __future__ import annotations

import logging

from gateway.core.canary import TIER as CANARY_TIER
from gateway.core.identity import Identity
from gateway.core.log_facts import Facts, beside

DECISIONS = logging.getLogger("gateway.decisions")
ADMITTED = logging.getLogger("gateway.decisions.admitted")
REFUSED = logging.getLogger("gateway.decisions.refused")
ADMITTED.disabled = True


def tell_admitted(facts: Facts) -> None:
    """Write the line of a call that holds its tokens. Ask `ADMITTED.disabled` before anything is
    made for it: every call comes by."""
    if facts.tier == CANARY_TIER:
        return
    ADMITTED.info("admitted", extra=beside(facts))


def tell_free(rid: str, route: str, identity: Identity, reason: str = "free") -> None:
    """The same for what holds no tokens, if anybody wants it."""
    if not ADMITTED.disabled:
        user, tier = identity.user_id, identity.tier
        facts = Facts(
            request=rid, user=user, tier=tier, route=route, decision="admitted", reason=reason
        )
        tell_admitted(facts)


def tell_refused(words: str, facts: Facts) -> None:
    """Write the line of a call that got no answer of a model."""
    if facts.tier == CANARY_TIER:  # it is refused every minute, and that is well
        return
    REFUSED.info(words, extra=beside(facts))
