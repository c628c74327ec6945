"""Trouble that is expected, told in one line; anything else is a fault and keeps its traceback.

The one list of what a command may run into. Each of these errors says in its own words what is
wrong, where, and what to do; secrets are not in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

FAILED, WRONG, INTERRUPTED = 1, 2, 130


class CommandError(Exception):
    """A command cannot be carried out as it was given; the text says why and what to do."""


def ended(work: Callable[[], int]) -> int:
    """Do it; its exit code, also where it ran into something that is expected."""
    try:
        return work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        code = report(error)
        if code is None:
            raise
        return code


def report(error: Exception) -> int | None:
    """Print an expected error; the exit code, or None for one that is not expected."""
    # Imported here because a command that does not fail needs none of them.
    from gateway.config import ConfigError
    from gateway.ports.ledger import LedgerUnavailable
    from gateway.ports.quota_store import StoreUnavailable

    if isinstance(error, ConfigError):
        print(error, file=sys.stderr)
        return WRONG
    if isinstance(error, CommandError):
        print(f"quota-gateway: {error}", file=sys.stderr)
        return WRONG
    if not isinstance(error, _expected()):
        return None
    kind = {
        LedgerUnavailable: "the ledger (Postgres) cannot be used: ",
        StoreUnavailable: "the counters (Redis) cannot be used: ",
    }.get(type(error), "")
    print(f"quota-gateway: {kind}{error}", file=sys.stderr)
    return FAILED


def _expected() -> tuple[type[Exception], ...]:
    from gateway.adapters.embedded import EmbeddedError
    from gateway.adapters.mail.words import TemplateError
    from gateway.adapters.openai_organisation import OrganisationUnavailable
    from gateway.adapters.postgres.migrate import MigrationError
    from gateway.adapters.redis_store.checks import UnfitStore
    from gateway.adapters.redis_store.scripts import ScriptError
    from gateway.adapters.upstream.opening import UnfitProxy
    from gateway.app.admin_client import AdminAway, AdminRefused
    from gateway.app.children import ChildFailed
    from gateway.app.supervisor import Died
    from gateway.ports.ledger import Conflict, LedgerUnavailable
    from gateway.ports.quota_store import StoreUnavailable
    from gateway.web.reserved import AddressTaken

    return (
        AddressTaken,
        AdminAway,
        AdminRefused,
        ChildFailed,
        Conflict,
        Died,
        EmbeddedError,
        LedgerUnavailable,
        MigrationError,
        OrganisationUnavailable,
        ScriptError,
        StoreUnavailable,
        TemplateError,
        UnfitProxy,
        UnfitStore,
    )
