"""May a call begin? All limits are asked at once, and the hold is made under all of them.

It promises that nothing is changed unless the hold is made, that a rid holds once however often
it asks, and that after a grant what is used and held is within each limit, but for a shadow tier,
whose calls are held whatever the limits say. It refuses to know what a call is for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.core.quota.account import Account
from gateway.core.quota.endings import OpenHold
from gateway.core.quota.limits import Bound, most_output
from gateway.core.quota.minute import Bucket
from gateway.core.quota.packs import left_in
from gateway.core.quota.reserve import SHARED_MS, ReserveAsk, ReserveCode, ReserveReply
from gateway.core.quota.shard import Shard


@dataclass(frozen=True, slots=True)
class _Scene:
    """One ask with the accounts it would be held by, as they are in the ask's period."""

    shard: Shard
    ask: ReserveAsk
    now_ms: int
    account: Account
    member: Account | None

    @property
    def caller(self) -> Account:
        """Who the limits of the moment bind."""
        return self.member or self.account

    def reply(self, code: ReserveCode, wait_ms: int = 0, hold: OpenHold | None = None,
              pack_tokens: int = 0, spared: int = 0) -> ReserveReply:  # fmt: skip
        """The answer, with the figures of the account whose limit was asked last."""
        shown, limit = self.account, self.ask.limits.tokens
        if code is ReserveCode.MEMBER and self.member is not None:
            shown, limit = self.member, self.ask.limits.member_tokens or 0
        return ReserveReply(
            code=code,
            output_tokens=hold.output_tokens if hold else 0,
            hold_tokens=hold.tokens if hold else 0,
            hold_nano_gbp=hold.nano_gbp if hold else 0,
            used_tokens=max(0, shown.used),
            held_tokens=shown.held,
            limit_tokens=limit,
            pack_tokens=pack_tokens,
            spent_nano_gbp=self.account.spent_nano_gbp,
            # A hold stays in its period. It does not keep that period's end: this is the running
            # one's.
            period_start_ms=hold.period_ms if hold else self.account.starts_ms,
            period_end_ms=self.account.ends_ms,
            now_ms=self.now_ms,
            wait_ms=wait_ms,
            rev=self.account.rev,
            member_rev=self.caller.rev,
            epoch=self.shard.epoch,
            spared=spared,
        )


def reserve(shard: Shard, ask: ReserveAsk, now_ms: int) -> ReserveReply:
    """Decide whether a call fits, and hold what it may cost."""
    quiet_ms = max(0, shard.quiet_until_ms - now_ms)
    account = shard.usable(ask.payer, None)
    member = shard.usable(ask.payer, ask.member) if ask.member is not None else None
    scene = _Scene(shard, ask, now_ms, account or Account(0, 0, 0, ""), member)
    if shard.epoch == 0 or quiet_ms > 0:  # after a loss gateways first bring what they know
        nobody = replace(scene, account=Account(0, 0, 0, ""), member=None)
        return nobody.reply(ReserveCode.NOT_READY, quiet_ms)
    if account is None or (ask.member is not None and member is None):
        nobody = replace(scene, account=Account(0, 0, 0, ""), member=None)
        return nobody.reply(ReserveCode.HYDRATE)
    before = shard.kept.get((ask.payer, ask.rid))
    if isinstance(before, OpenHold) and not before.is_orphan:
        return scene.reply(ReserveCode.HELD_BEFORE, hold=before)
    if before is not None:
        return scene.reply(ReserveCode.ENDED)
    if not (ask.period_start_ms <= now_ms < ask.period_end_ms and _tier_runs(shard, ask, now_ms)):
        return scene.reply(ReserveCode.PERIOD)
    if account.rev != ask.rev or (member is not None and member.rev != ask.member_rev):
        return scene.reply(ReserveCode.STALE)
    return _decide(replace(scene, account=_rolled(account, ask, now_ms),
                           member=member and _rolled(member, ask, now_ms)))  # fmt: skip


def _tier_runs(shard: Shard, ask: ReserveAsk, now_ms: int) -> bool:
    """Whether the period that the ask names for its tier, if that is capped, is the running one."""
    starts_ms = ask.limits.tier_period_start_ms
    share = shard.share(ask.tier, starts_ms)
    return share is None or starts_ms is None or share.runs(starts_ms, now_ms)


def _rolled(account: Account, ask: ReserveAsk, now_ms: int) -> Account:
    """The account in the ask's period. A copy: a refusal is not stored, not even its period."""
    copied = replace(account)
    copied.roll(now_ms, ask.period_start_ms, ask.period_end_ms)
    return copied


def _decide(scene: _Scene) -> ReserveReply:
    ask, account = scene.ask, scene.account
    packs_left = left_in(account.packs, scene.now_ms)
    code, output = most_output(_bounds(scene, packs_left), ask.output_least, ask.output_wanted)
    # Open holds end soon, nobody knows when; everything else comes back with the period.
    wait_ms = 0 if code is ReserveCode.IN_FLIGHT else account.ends_ms - scene.now_ms
    if code is ReserveCode.TIER and _is_shared_anew(scene):
        wait_ms = SHARED_MS
    buckets = (scene.caller.requests, scene.caller.tokens)
    if code is ReserveCode.HELD:
        output = _within_a_minute(ask, output)
        code, wait_ms = _now_fits(scene, ask.prompt_tokens + output * ask.choices)
    spared = 0
    if code is not ReserveCode.HELD:
        scene.caller.requests, scene.caller.tokens = buckets
        if not ask.limits.shadow:
            return scene.reply(code, wait_ms, pack_tokens=packs_left)
        spared = int(code)
    hold = _hold(scene, ask.output_wanted if ask.limits.shadow else output)
    if ask.lease_ms:  # who only asks is told what would be held
        _grant(scene, hold)
    return scene.reply(ReserveCode.HELD, hold=hold, pack_tokens=packs_left, spared=spared)


def _is_shared_anew(scene: _Scene) -> bool:
    """Whether other shards may have what the call needs of its tier's cap."""
    ask = scene.ask
    share = scene.shard.share(ask.tier, ask.limits.tier_period_start_ms)
    return share is not None and share.may_get(ask.prompt_tokens + ask.output_least * ask.choices)


def _hold(scene: _Scene, output: int) -> OpenHold:
    ask = scene.ask
    return OpenHold(
        output_tokens=output,
        tokens=ask.prompt_tokens + output * ask.choices,
        nano_gbp=ask.prompt_nano_gbp + output * ask.choices * ask.output_nano_gbp,
        period_ms=scene.account.starts_ms,
        since_ms=scene.now_ms,
        tail=ask.tail,
    )


def _within_a_minute(ask: ReserveAsk, output: int) -> int:
    """A hold that is larger than a minute's limit could never pass, however long one waits."""
    if ask.limits.tokens_a_minute is None:
        return output
    fits = (ask.limits.tokens_a_minute - ask.prompt_tokens) // ask.choices
    return min(output, max(ask.output_least, fits))


def _bounds(scene: _Scene, packs_left: int) -> list[Bound]:
    """The limits of a period, in the order in which they are told."""
    ask, account, limits = scene.ask, scene.account, scene.ask.limits
    tokens, money = ask.choices, ask.choices * ask.output_nano_gbp
    # Overdraft is not taken from packs a second time: settling took it from them already.
    left = max(0, limits.tokens - account.used) + packs_left
    bounds = [Bound(ReserveCode.MONTH, left, account.held, ask.prompt_tokens, tokens)]
    if scene.member is not None and limits.member_tokens is not None:
        left = limits.member_tokens - scene.member.used
        held = scene.member.held
        bounds.append(Bound(ReserveCode.MEMBER, left, held, ask.prompt_tokens, tokens))
    share = scene.shard.share(ask.tier, limits.tier_period_start_ms)
    if share is not None and limits.tier_period_start_ms is not None:
        left = share.left(limits.tier_period_start_ms)
        bounds.append(Bound(ReserveCode.TIER, left, share.held, ask.prompt_tokens, tokens))
    if limits.nano_gbp is not None:
        left, held = limits.nano_gbp - account.spent_nano_gbp, account.held_nano_gbp
        bounds.append(Bound(ReserveCode.BUDGET, left, held, ask.prompt_nano_gbp, money))
    return bounds


def _now_fits(scene: _Scene, tokens: int) -> tuple[ReserveCode, int]:
    """The limits of the moment; the call is poured into the caller's buckets."""
    limits, caller = scene.ask.limits, scene.caller

    def poured(bucket: Bucket, limit: int | None, units: int) -> tuple[Bucket, int]:
        return (bucket, 0) if limit is None else bucket.pour(limit, units, scene.now_ms)

    if limits.concurrent is not None and caller.open_holds >= limits.concurrent:
        return ReserveCode.CONCURRENT, 0
    caller.requests, wait_ms = poured(caller.requests, limits.requests_a_minute, 1)
    if wait_ms > 0:
        return ReserveCode.REQUESTS, wait_ms
    if limits.tokens_a_minute is not None and tokens > limits.tokens_a_minute:
        return ReserveCode.TOKENS, 0  # however long one waits
    caller.tokens, wait_ms = poured(caller.tokens, limits.tokens_a_minute, tokens)
    return (ReserveCode.TOKENS if wait_ms > 0 else ReserveCode.HELD), wait_ms


def _grant(scene: _Scene, hold: OpenHold) -> None:
    shard, ask = scene.shard, scene.ask
    call = (ask.payer, ask.rid)
    shard.kept[call] = hold
    shard.leases[call] = scene.now_ms + ask.lease_ms
    scene.account.allowance = ask.limits.tokens
    shard.accounts[(ask.payer, None)] = scene.account
    scene.account.hold(hold.tokens, hold.nano_gbp)
    if scene.member is not None:
        shard.accounts[(ask.payer, ask.member)] = scene.member
        scene.member.hold(hold.tokens, hold.nano_gbp)
    tier_starts_ms = ask.limits.tier_period_start_ms
    shard.count_in_tier(ask.tier, tier_starts_ms, 0, hold.tokens)
