"""Rules over more than one key: names that must exist, orders that must hold, schemes that fit.

Each check looks at one section and yields what is wrong with it; together they find everything that
can be known without opening a connection. Values that may be secret are described, never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, pairwise

from gateway.config.errors import Problem, key_path, unknown
from gateway.config.identity_checks import check_identity
from gateway.config.notify_checks import check_notify
from gateway.config.payment_checks import check_payments
from gateway.config.price_checks import check_prices
from gateway.config.shape import File, Listen, Model, Tier
from gateway.config.values import PORT_MAX, StoreUrl, is_name, is_web_url, scheme_of
from gateway.core import canary
from gateway.core.models import PER_MILLE, covers
from gateway.core.period import zone_exists
from gateway.core.prompt.pictures import PICTURE_RULES

# 16 characters of base64 are 96 bits: out of reach for whoever steals the digests.
PEPPER_CHARACTERS_MIN = 16
# Metrics file every model that is not configured under this label.
_OTHER_MODELS = "other"
_REDIS_SCHEMES = (
    "redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel",
)  # fmt: skip
_LEDGER_SCHEMES = ("postgresql", "postgres")
# Headers the gateway writes itself, or that belong to one connection only (RFC 9110, 7.6.1).
_OWN_HEADERS = {
    "accept-encoding", "authorization", "connection", "content-encoding", "content-length",
    "content-type", "cookie", "expect", "host", "keep-alive", "proxy-authorization", "te",
    "trailer", "transfer-encoding", "upgrade", "user-agent",
}  # fmt: skip


def check_file(file: File) -> list[Problem]:
    """Everything that is wrong with a file whose single values are right."""
    return list(
        chain(
            _listen(file.listen),
            _web_urls(file),
            _stores(file),
            _lease(file),
            _upstreams(file),
            *(_model(file, name, model) for name, model in file.models.items()),
            check_prices(file),
            _plan(file),
            *(_tier(file, name, tier) for name, tier in file.plan.tiers.items()),
            _pepper(file),
            check_payments(file),
            check_notify(file.notify),
            check_identity(file.identity),
        )
    )


def _listen(listen: Listen) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for name in ("proxy", "ops", "admin"):
        address = getattr(listen, name)
        port = int(address.rpartition(":")[2])
        if port > PORT_MAX:
            yield Problem(f"listen.{name}", f"expected a port up to {PORT_MAX}, found {port}")
        first = taken.setdefault(address, name)
        # Port 0 is any free one, so it may stand more than once.
        if first != name and port:
            yield Problem(f"listen.{name}", f"{address} is already taken by listen.{first}")


def _web_urls(file: File) -> Iterator[Problem]:
    urls = {
        "public_url": file.public_url,
        "refusal.upgrade_url": file.refusal.upgrade_url,
        "refusal.topup_url": file.refusal.topup_url,
    }
    for path, url in urls.items():
        if url is not None and not is_web_url(url):
            yield _not_web_url(path, url)


def _not_web_url(path: str, url: str) -> Problem:
    found = f"scheme {scheme_of(url)!r}" if scheme_of(url) else "no scheme"
    return Problem(
        path, f"expected http://host or https://host, without user and parameters; found {found}"
    )


def _stores(file: File) -> Iterator[Problem]:
    yield from _store("redis.url", file.redis.url, _REDIS_SCHEMES)
    yield from _many_servers("redis.url", file.redis.url)
    yield from _store("ledger.url", file.ledger.url, _LEDGER_SCHEMES)


def _store(path: str, url: StoreUrl, schemes: tuple[str, ...]) -> Iterator[Problem]:
    if url.is_embedded or (url.scheme in schemes and url.has_place):
        return
    expected = ", ".join(f"{scheme}://" for scheme in schemes)
    found = f"{url.scheme}:// without a host" if url.scheme in schemes else "something else"
    yield Problem(path, f"expected {expected} and a host or path, or embedded; found {found}")


def _many_servers(path: str, url: StoreUrl) -> Iterator[Problem]:
    """What the URLs of a cluster and of Sentinels say beyond hosts."""
    hosts, _, rest = (url.place or "").partition("/")
    name, _, database = rest.partition("/")
    if url.scheme in ("redis+cluster", "rediss+cluster"):
        if rest or not hosts:
            expected = f"{url.scheme}://host:port[,host:port...] and no path"
            yield Problem(path, f"expected {expected}: a cluster has one database")
    elif url.scheme == "redis+sentinel":
        if not (hosts and name and (not database or database.isdecimal())):
            expected = "redis+sentinel://host:port[,host:port...]/name[/db]"
            yield Problem(path, f"expected {expected}: by which name Sentinel knows the master")
    elif "," in hosts and url.scheme in ("redis", "rediss"):
        yield Problem(path, "names several hosts: write redis+cluster:// or redis+sentinel://")


def _lease(file: File) -> Iterator[Problem]:
    lease = file.lease
    if lease.heartbeat_ms * 2 >= lease.ms:
        yield Problem(
            "lease.heartbeat_ms",
            f"expected less than half of lease.ms ({lease.ms}), so that one lost heartbeat ends no "
            f"stream; found {lease.heartbeat_ms}",
        )


def _upstreams(file: File) -> Iterator[Problem]:
    for name, upstream in file.upstreams.items():
        path = key_path("upstreams", name)
        if not is_web_url(upstream.base_url):
            yield _not_web_url(f"{path}.base_url", upstream.base_url)
        header = upstream.user_header
        if header is not None and header.lower() in _OWN_HEADERS:
            yield Problem(f"{path}.user_header", f"{header} is written by the gateway itself")
        if header is not None and header.lower() == "api-key" and upstream.auth == "api-key":
            yield Problem(f"{path}.user_header", "api-key carries the key (auth: api-key)")
        if not upstream.api_key.is_header_value:
            yield Problem(f"{path}.api_key", "expected printable ASCII without spaces")


def _model(file: File, name: str, model: Model) -> Iterator[Problem]:
    path = key_path("models", name)
    yield from _model_names(path, name, model)
    upstream = file.upstreams.get(model.upstream)
    if upstream is None:
        yield Problem(f"{path}.upstream", unknown(model.upstream, "upstreams", file.upstreams))
    elif upstream.api_version is not None and (name.endswith("*") or model.snapshots):
        yield Problem(
            path,
            f"upstreams.{model.upstream} has an api_version, so each deployment is named in the "
            "path: write every name out, without a star or snapshots",
        )
    if isinstance(model.pictures, str) and model.pictures not in PICTURE_RULES:
        known = unknown(model.pictures, "the rules for pictures", PICTURE_RULES)
        yield Problem(f"{path}.pictures", f"{known}; or the most a picture costs, in tokens")
    ladder = {
        "output_tokens_min": model.output_tokens_min,
        "output_tokens_default": model.output_tokens_default,
        "output_tokens_max": model.output_tokens_max,
        "context_tokens": model.context_tokens,
    }
    for (low, low_tokens), (high, high_tokens) in pairwise(ladder.items()):
        if low_tokens > high_tokens:
            yield Problem(
                f"{path}.{low}", f"expected at most {high} ({high_tokens}), found {low_tokens}"
            )
    if model.output_tokens_max and not model.output_tokens_min:
        yield Problem(
            f"{path}.output_tokens_min",
            "expected at least 1; it is 0 only where output_tokens_max is 0, of a model that "
            "writes nothing",
        )
    yield from _weights(f"{path}.weights", model)


def _model_names(path: str, name: str, model: Model) -> Iterator[Problem]:
    """Its own name, and by which others it is called here and upstream."""
    stem = name.removesuffix("*")
    if name == canary.MODEL:
        yield Problem(path, _reserved("model"))
    if (not is_name(stem) and name != "*") or name == _OTHER_MODELS:
        yield Problem(
            path,
            "expected a name of letters, digits and ._:/-, with one * at most and at its end only, "
            'and not "other"',
        )
    if model.snapshots and stem != name:
        yield Problem(f"{path}.snapshots", "expected none of a pattern: dates match it already")
    if model.upstream_model is not None and (stem != name or model.snapshots):
        yield Problem(
            f"{path}.upstream_model",
            "expected none where the entry stands for many names: each is sent as it was called",
        )
    elif model.upstream_model is not None and not is_name(model.upstream_model):
        yield Problem(f"{path}.upstream_model", "expected a name of letters, digits and ._:/-")


def _reserved(what: str) -> str:
    return f"this {what} is the gateway's own, for its canary (docs/metrics.md): take another name"


def _weights(path: str, model: Model) -> Iterator[Problem]:
    for kind in ("cached", "reasoning"):
        weight = getattr(model.weights, kind)
        if round(weight * PER_MILLE) / PER_MILLE != weight:
            yield Problem(f"{path}.{kind}", f"expected at most 3 decimals, found {weight}")


def _plan(file: File) -> Iterator[Problem]:
    plan = file.plan
    if plan.default_tier not in plan.tiers:
        yield Problem("plan.default_tier", unknown(plan.default_tier, "plan.tiers", plan.tiers))
    if not zone_exists(plan.period.zone):
        yield Problem(
            "plan.period.zone",
            f"expected an IANA name such as Europe/London, found {plan.period.zone!r}",
        )
    thresholds = plan.thresholds_percent
    if any(low >= high for low, high in pairwise(thresholds)):
        yield Problem(
            "plan.thresholds_percent",
            f"expected each to be larger than the one before, found {list(thresholds)}",
        )


def _tier(file: File, name: str, tier: Tier) -> Iterator[Problem]:
    path = key_path("plan.tiers", name)
    if not is_name(name):
        yield Problem(path, "expected a name of letters, digits and ._:/-")
    if name == canary.TIER:
        yield Problem(path, _reserved("tier"))
    if tier.upgrade is not None and tier.upgrade not in file.plan.tiers:
        yield Problem(f"{path}.upgrade", unknown(tier.upgrade, "plan.tiers", file.plan.tiers))
    circle = _circle(file, name)
    if circle and name == min(circle):
        route = " -> ".join([*circle, name])
        yield Problem(f"{path}.upgrade", f"the upgrades lead round in a circle: {route}")
    if not tier.limits.models:
        yield Problem(f"{path}.limits.models", 'expected ["*"] or names of models, found none')
    for i, model in enumerate(tier.limits.models):
        if not any(covers(model, name) for name in file.models):
            yield Problem(f"{path}.limits.models[{i}]", unknown(model, "models", file.models))
    if tier.limits.gbp is not None and Decimal(tier.limits.gbp) == 0:
        yield Problem(f"{path}.limits.gbp", "expected more than 0; tokens: 0 grants nothing at all")
    yield from _minute(file, path, tier)
    if tier.packs is not None and Decimal(tier.packs.price_gbp) == 0:
        yield Problem(f"{path}.packs.price_gbp", "expected more than 0")


def _minute(file: File, path: str, tier: Tier) -> Iterator[Problem]:
    """A minute that is smaller than the least answer of every model lets nothing through, ever."""
    least = [
        model.output_tokens_min
        for name, model in file.models.items()
        if any(covers(allowed, name) for allowed in tier.limits.models)
    ]
    if tier.limits.tpm is not None and least and tier.limits.tpm <= min(least):
        yield Problem(
            f"{path}.limits.tpm",
            f"expected more than {min(least)}, the least output_tokens_min of its models: no call "
            f"would ever fit into {tier.limits.tpm}",
        )


def _circle(file: File, start: str) -> list[str]:
    """The tiers through which `upgrade` leads from this one back to it; empty if it does not."""
    tiers, route = file.plan.tiers, [start]
    while (following := tiers[route[-1]].upgrade) in tiers and following not in route:
        route.append(following)
    return route if following == start else []


def _pepper(file: File) -> Iterator[Problem]:
    pepper, path = file.identity.keys.pepper, "identity.keys.pepper"
    if not pepper and not file.ledger.url.is_embedded:
        yield Problem(
            path,
            "expected a secret: it may be empty only with ledger.url embedded, where the gateway "
            "makes one and keeps it in state_dir",
        )
    elif pepper and len(pepper.reveal()) < PEPPER_CHARACTERS_MIN:
        yield Problem(path, f"expected at least {PEPPER_CHARACTERS_MIN} characters")
