"""What the doctor reads off the configuration and the disk, asking nobody.

The file itself is in order by now: this is about what is allowed and still not what anybody wants
in production.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.app.doctor.finding import Finding
from gateway.config import Settings

_FREE_MIB_MIN = 256
_MIB = 2**20


def is_loopback(url: str) -> bool:
    """Whether it leads nowhere but to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def state_dir(settings: Settings) -> Finding:
    """Can be written, and has room for what Redis does not take."""
    place = settings.state_dir.resolve()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "state_dir",
            "wrong",
            f"{place} cannot be written: {there} is no directory that this user may write",
            "set state_dir (QUOTA_STATE_DIR) to another place, or run as its owner",
        )
    free_mib = shutil.disk_usage(there).free // _MIB
    if free_mib < _FREE_MIB_MIN:
        return Finding(
            "state_dir",
            "warning",
            f"{place} has {free_mib} MiB left",
            "make room: settlements are kept there while Redis is away",
        )
    made = "" if there == place else ", and will be made at the start"
    return Finding("state_dir", "ok", f"{place} can be written{made}")


def upstreams(settings: Settings, stand_in: str | None) -> Iterator[Finding]:
    """Each has a key, and is spoken to in secret. `stand_in`: it answers in place of all."""
    for name, each in settings.upstreams.items():
        check = f"upstreams.{name}"
        if stand_in is not None:
            yield Finding(check, "ok", f"the built-in stand-in answers for it, at {stand_in}")
        elif is_loopback(each.base_url):
            yield Finding(check, "ok", f"{each.base_url}, on this machine")
        elif not each.base_url.startswith("https://"):
            found = f"{each.base_url} is not encrypted: its key and all prompts can be overheard"
            yield Finding(check, "warning", found, f"write https:// in {check}.base_url")
        elif not each.api_key:
            yield Finding(
                check,
                "wrong",
                f"{each.base_url} is asked without a key: every call will fail",
                f"set {check}.api_key (for OpenAI the variable OPENAI_API_KEY)",
            )
        else:
            yield Finding(check, "ok", f"{each.base_url}, with a key")


def prices(settings: Settings, now_ms: int) -> Finding:
    """Every model has a price of its own today."""
    table = settings.prices
    lacking = [name for name in settings.models if table.price_for(name, now_ms).is_default]
    if table.versions[0].from_ms > now_ms:
        return Finding(
            "prices",
            "warning",
            f"the first price list, {table.versions[0].id}, has not begun",
            "correct its `from`: until then every call counts as unpriced",
        )
    if lacking:
        return Finding(
            "prices",
            "warning",
            f"booked at the default price, without one of their own: {', '.join(lacking)}",
            "add a line for each to the newest of prices.versions",
        )
    return Finding("prices", "ok", f"all {len(settings.models)} models have a price today")


def pepper(settings: Settings) -> Finding:
    """Keys stay good as long as it does."""
    if settings.identity.keys.pepper:
        return Finding("pepper", "ok", "it is in the configuration")
    return Finding(
        "pepper",
        "ok",
        f"it is made at the start and kept in {settings.state_dir / 'pepper'}",
        "save that file with your backups: without it every key is unusable",
    )


def webhooks(settings: Settings) -> Finding:
    """How many there are, and nobody overhears them; their addresses are secrets."""
    of_users = [each.url.reveal() for each in settings.notify.webhooks]
    of_operators = [each.webhook.reveal() for each in settings.notify.operators]
    told = f"{len(of_users)} for the news of users, {len(of_operators)} for operators"
    hooks = [*of_users, *of_operators]
    if any(not url.startswith("https://") and not is_loopback(url) for url in hooks):
        found = f"{told}; not all are encrypted"
        return Finding("webhooks", "warning", found, "write https:// in their addresses")
    return Finding("webhooks", "ok", told)


def payments(settings: Settings) -> Finding:
    """Packs that are offered can be bought."""
    selling = [name for name, tier in settings.plan.tiers.items() if tier.packs is not None]
    if settings.stripe is not None:
        return Finding("payments", "ok", f"Stripe; packs are offered to: {', '.join(selling)}")
    if settings.refusal.topup_url is not None:
        return Finding("payments", "ok", f"packs are sold at {settings.refusal.topup_url}")
    if selling:
        return Finding(
            "payments",
            "warning",
            f"packs are offered to {', '.join(selling)}, and nobody can buy one",
            "set payments.stripe or refusal.topup_url (docs/topups.md)",
        )
    return Finding("payments", "ok", "nothing is sold")
