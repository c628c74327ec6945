"""What the scripts of every call answer, read by place as their headers in `lua/` say.

Code and rid come first in each; that the rid is the caller's own was checked before.
"""

from __future__ import annotations

from typing import Any

from gateway.core.quota.reserve import ReserveCode, ReserveReply
from gateway.core.quota.settle import SettleCode, SettleReply

_RESERVE_CODES = {code.value: code for code in ReserveCode}  # calling the class takes longer
_SETTLE_CODES = {code.value: code for code in SettleCode}


def reserve_reply(fields: list[Any]) -> ReserveReply:
    """Of `reserve`."""
    return ReserveReply(_RESERVE_CODES[fields[0]], *fields[2:])


def settle_reply(fields: list[Any]) -> SettleReply:
    """Of `settle`, which names the event in its last field."""
    fields[9] = fields[9].decode()
    return SettleReply(_SETTLE_CODES[fields[0]], *fields[2:])
