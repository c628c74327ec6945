"""How a call ends: its hold is let go, its cost is paid, and one event tells the ledger.

It promises that a hold ends once, that a charge is never refused, and that each charge is one
event. A charge is paid by the allowance of its period, then by packs, earliest end first, then by
the allowance again, which is overdrawn. It refuses to know what a call did: it sees its charge.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.event import PackSplit, ScriptPart
from gateway.core.quota.account import Account
from gateway.core.quota.endings import KEPT_MS, RELEASED_MS, Expired, Mark, OpenHold
from gateway.core.quota.packs import give_back, spend, total, undo
from gateway.core.quota.settle import Correction, SettleCode, Settlement, SettleReply
from gateway.core.quota.shard import Call, Event, Shard, is_past

NOT_BOOKED = Expired(0, 0, 0, 0, ())


@dataclass(frozen=True, slots=True)
class _Paid:
    """Who pays a charge."""

    allowance: int = 0
    packs: int = 0
    overdraft: int = 0
    crossed_percent: int = 0


@dataclass(frozen=True, slots=True)
class _Scene:
    """One settlement and what it finds. An account that is not in force counts nothing: when it
    is brought back, the ledger knows the event."""

    shard: Shard
    end: Settlement
    now_ms: int
    account: Account | None
    member: Account | None

    @property
    def call(self) -> Call:
        return (self.end.payer, self.end.rid)

    def reply(
        self, code: SettleCode, paid: _Paid | None = None, stream_id: str = ""
    ) -> SettleReply:
        paid = paid or _Paid()
        account = self.account or Account(0, 0, 0, "")
        return SettleReply(
            code=code,
            used_tokens=max(0, account.used),
            held_tokens=account.held,
            limit_tokens=account.allowance,
            crossed_percent=paid.crossed_percent,
            from_allowance=paid.allowance,
            from_packs=paid.packs,
            overdraft_tokens=paid.overdraft,
            stream_id=stream_id,
            epoch=self.shard.epoch,
        )


def settle(shard: Shard, end: Settlement, now_ms: int, stream_id: str) -> SettleReply:
    """End a hold. `stream_id` is the id that its event gets, where there is one."""
    scene = _Scene(
        shard, end, now_ms, shard.in_force(end.payer, None),
        shard.member_in_force(end.payer, end.member),
    )  # fmt: skip
    if shard.epoch == 0:
        return scene.reply(SettleCode.NOT_READY)
    _come_to(scene)
    found = shard.kept.get(scene.call)
    code = _without_charge(scene)
    if code is not None:
        return scene.reply(code)
    if isinstance(found, OpenHold):
        if end.kind == "release":
            _let_go(scene, found)
            shard.keep(scene.call, Mark.RELEASED, now_ms + RELEASED_MS)
            return scene.reply(SettleCode.RELEASED)
        return _charge(scene, found, NOT_BOOKED, stream_id)
    return _charge(scene, None, found if isinstance(found, Expired) else NOT_BOOKED, stream_id)


def _without_charge(scene: _Scene) -> SettleCode | None:
    """The answer where nothing is charged and no hold ends; None where there is one to end."""
    shard, end, call = scene.shard, scene.end, scene.call
    found = shard.kept.get(call)
    if end.kind == "expire":
        # The sweeper read the lease a while ago: a heartbeat since then wins.
        if not isinstance(found, OpenHold) or call not in shard.leases:
            return SettleCode.NOTHING_OPEN
        over = shard.leases[call] + end.grace_ms <= scene.now_ms
        return None if over else SettleCode.LEASE_RUNS
    if isinstance(found, OpenHold | Expired):
        return None
    if end.kind == "release":
        if found is None:  # a reserve that comes late must find this
            shard.keep(call, Mark.RELEASED, scene.now_ms + RELEASED_MS)
        return SettleCode.RELEASED
    # Within an epoch absent means ended. Of an older epoch it means nothing: the hold may have
    # been lost with it, so the charge is booked, and the ledger's key tells a repetition.
    is_lost = found is None and end.epoch < shard.epoch
    return None if is_lost else SettleCode.NOTHING_OPEN


def _come_to(scene: _Scene) -> None:
    """Begin the period of a charge that nothing was held for, as the reserve would have."""
    end = scene.end
    for account in (scene.account, scene.member):
        if account is not None and account.token is None and end.period_end_ms:
            account.roll(end.period_start_ms, end.period_start_ms, end.period_end_ms)


def _let_go(scene: _Scene, hold: OpenHold | None, charged: int = 0) -> None:
    """End the lease; what the hold held is free again wherever it was counted. An orphan's was
    not: its account was brought back without it."""
    end, shard = scene.end, scene.shard
    is_held = hold is not None and not hold.is_orphan and scene.account is not None
    tokens = hold.tokens if hold is not None and is_held else 0
    for account in (scene.account, scene.member):
        if account is not None and hold is not None and is_held:
            account.let_go(tokens, hold.nano_gbp)
    shard.count_in_tier(end.tier, end.tier_period_start_ms, charged, -tokens)
    shard.leases.pop(scene.call, None)


def _charge(scene: _Scene, hold: OpenHold | None, booked: Expired, stream_id: str) -> SettleReply:
    """Book the charge, or what it differs from what an expiry booked."""
    end, shard = scene.end, scene.shard
    is_correction = hold is None and booked is not NOT_BOOKED
    change = end.charged_tokens - booked.tokens
    nano_gbp = end.cost_nano_gbp - booked.nano_gbp
    period_ms = hold.period_ms if hold else end.period_start_ms
    since_ms = hold.since_ms if hold else booked.since_ms if is_correction else scene.now_ms
    split: PackSplit = ()
    crossed = 0
    if scene.account is not None:
        scene.account.allowance = scene.account.allowance or end.limit_tokens
        if change < 0:  # what is taken back goes first to the packs that paid it
            split = give_back(scene.account.packs, booked.split, -change)
        else:
            beyond = scene.account.beyond_allowance(change, period_ms, end.limit_tokens)
            split = spend(scene.account.packs, since_ms, beyond)
        scene.account.count(period_ms, change, total(split), nano_gbp)
        scene.account.events += 1
        if period_ms == scene.account.starts_ms:  # the event tells it of its own period
            crossed = scene.account.cross(end.thresholds_percent)
    if scene.member is not None:
        scene.member.count(period_ms, change, 0, nano_gbp)
    held = hold.tokens if hold else booked.hold_tokens
    overdraft = 0
    if hold or is_correction:  # of a charge without a hold nobody knows what it held
        overdraft = max(0, end.charged_tokens - held) - max(0, booked.tokens - held)
    paid = _Paid(change - total(split), total(split), overdraft, crossed)
    part = ScriptPart(
        shard.epoch, scene.account.events if scene.account else 0, period_ms,
        hold.tokens if hold else 0, paid.allowance, paid.packs, overdraft, booked.tokens,
        booked.nano_gbp, int(is_correction), end.tier_period_start_ms or 0, crossed, split,
    )  # fmt: skip
    shard.events.append(Event(stream_id, end.event_json, part))
    shard.newest_id = stream_id
    _leave(scene, hold, is_correction, split)
    _let_go(scene, hold, change)
    code = SettleCode.SETTLED if hold else SettleCode.LATE
    return scene.reply(SettleCode.CORRECTED if is_correction else code, paid, stream_id)


def _leave(scene: _Scene, hold: OpenHold | None, is_correction: bool, split: PackSplit) -> None:
    """Keep of a charged call what a late call of its rid must find."""
    end, shard, call = scene.end, scene.shard, scene.call
    shard.kept.pop(call, None)
    until_ms = scene.now_ms + KEPT_MS
    if end.kind == "expire" and hold is not None:
        expired = Expired(end.charged_tokens, end.cost_nano_gbp, hold.tokens, hold.since_ms, split)
        shard.keep(call, expired, until_ms)
    elif end.epoch < shard.epoch or end.kind == "release" or not (hold or is_correction):
        # Across epochs, or of a release, only a mark can tell a repetition.
        shard.keep(call, Mark.BOOKED, until_ms)
    else:
        shard.forget_at.pop(call, None)


def correct(shard: Shard, double: Correction, now_ms: int) -> bool:
    """Take back a charge that was counted twice: the ledger had its event already.

    An account that was brought back after that event never counted it. The figures become what
    they were without it, whatever became of its packs since.
    """
    call = (double.payer, double.rid)
    if shard.epoch != double.epoch or call in shard.kept:
        return False
    account = _counted(shard.in_force(double.payer, None), double)
    member = _counted(shard.member_in_force(double.payer, double.member), double)
    if account is None and member is None and double.tier_period_start_ms is None:
        return False  # a capped tier counts all of its epoch
    tokens, nano_gbp = double.charged_tokens, double.cost_nano_gbp
    if account is not None:
        undo(account.packs, double.pack_split)
        account.count(double.period_start_ms, -tokens, -total(double.pack_split), -nano_gbp)
    if member is not None:
        member.count(double.period_start_ms, -tokens, 0, -nano_gbp)
    shard.count_in_tier(double.tier, double.tier_period_start_ms, -tokens, 0)
    shard.keep(call, Mark.BOOKED, now_ms + KEPT_MS)
    return True


def _counted(account: Account | None, double: Correction) -> Account | None:
    return account if account and is_past(double.stream_id, account.since_id) else None
