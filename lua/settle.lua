#!lua flags=allow-oom
-- purpose: end a hold, charge what it cost, and append the event to the outbox.
-- promise: a hold ends once; the charge and its event are one step; a charge is never refused,
--          memory full or not. Repeating a rid changes nothing.
-- prelude: values account packs spending tier counting charge
-- KEYS: 1 meta · 2 account · 3 holds · 4 leases · 5 outbox · 6 kept endings · 7 packs
--       8 tier · 9 account of the member (only where the payer is a team)
-- ARGV: 1 rid · 2 lease member ("<account> <rid>") · 3 kind: settle | release | expire
--       4 amounts, with single spaces: epoch of the hold, its period's start ms, charge in tokens,
--       cost in nano-GBP, grace ms (expire), its allowance, if nothing was held its period's end
--       5 start of a capped tier's period, ms, else '' · 6 thresholds, percent, rising
--       7 event (JSON) · 8 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid, used, held, limit, threshold crossed, from allowance, from packs, overdraft,
--          stream id, epoch. Codes: 1 settled (or expired) · 0 nothing open
--          2 an expired hold corrected · 3 booked late, the hold is gone · 4 released
--          5 the lease still runs · -1 meta missing
-- invariants: held falls by the hold; the figures of the hold's own period rise by the charge, the
--             allowance first, then packs that lived when the hold was made, then the allowance
--             again; the outbox gets one event a charge, numbered without gaps within the account.
--             A release leaves a mark: a reserve that comes late, or twice, must find it.
-- cost: 1 to 3 HMGET, 2 to 4 HGET, XADD, HDEL, 1 or 2 ZREM, an HSET each for account (two with its
--       period before), member, tier, changed pack, kept ending; HGETALL if there are packs; TIME
--       and ZADD to keep an ending; ZSCORE to expire. Loops over packs and thresholds.

local meta_key, account_key, holds_key, leases_key, outbox_key, endings_key, packs_key, tier_key,
  member_key = unpack(KEYS)
local rid, lease_member, kind, tier_starts, event = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[7]
local RELEASED_MS, BOOKED_MS = 60000, 86400000
local hold_epoch, period, charge, cost, grace_ms, hold_allowance, ends = read_charge(ARGV[4])
if not hold_epoch or rid == NONE or not (tier_starts == NONE or amount(tier_starts))
   or (kind ~= 'settle' and kind ~= 'release' and kind ~= 'expire') then
  return redis.error_reply('ERR settle: an argument is not of its kind')
end
local epoch, clock = read_epoch(meta_key, ARGV[8])
if ARGV[8] ~= NONE and not server_ms(clock, ARGV[8]) then
  return redis.error_reply('ERR settle: a clock of the caller is refused')
elseif epoch == 0 then
  return { -1, rid, 0, 0, 0, 0, 0, 0, 0, NONE, 0 }
end
local account = read_counted(epoch, account_key, period, ends)
local member = read_counted(epoch, member_key, period, ends)

local function answer(code, threshold, from_allowance, from_packs, overdraft, stream_id)
  return { code, rid, account and math.max(0, against_allowance(account)) or 0,
           account and account.held or 0, account and account.allowance or 0, threshold or 0,
           from_allowance or 0, from_packs or 0, overdraft or 0, stream_id or NONE, epoch }
end

local found = read_ending(redis.call('HGET', holds_key, rid))
local is_open, was = found and found.is_open, found and found.state == 'x' and found
local now = (kind ~= 'settle' or not is_open or hold_epoch < epoch) and server_ms(clock, ARGV[8])
if kind == 'expire' then
  local deadline = redis.call('ZSCORE', leases_key, lease_member)
  if not is_open or not deadline then
    return answer(0)
  elseif deadline + grace_ms > now then
    return answer(5)
  end
elseif (found and not is_open and not was)
       or (not found and kind == 'settle' and hold_epoch >= epoch) then
  return answer(kind == 'release' and 4 or 0)
end

local tier, held, held_nano_gbp, open = read_tier(tier_key, tier_starts, epoch), 0, 0, 0
if account and is_open and found.state == 'h' then -- an orphan is held by nothing any more
  held, held_nano_gbp, open = -found.hold, -found.nano_gbp, -1
end
if kind == 'release' and not was then
  redis.call('ZADD', endings_key, now + RELEASED_MS, lease_member) -- first: only this may fail
  redis.call('HSET', holds_key, rid, 'v')
  if is_open then
    store_all(account, member, tier, held, held_nano_gbp, open, 0)
    redis.call('ZREM', leases_key, lease_member)
  end
  return answer(4)
end

-- the figures
local since, booked, booked_cost, booked_split = found and found.since or now, 0, 0, '-'
if was then
  booked, booked_cost, booked_split = was.tokens, was.nano_gbp, was.split
end
local change, cost_change, packs = charge - booked, cost - booked_cost, NO_PACKS
local paid_packs, split, threshold, seq = 0, '-', 0, 0
local overdraft = found and math.max(0, charge - found.hold) - math.max(0, booked - found.hold) or 0
period = is_open and found.period or period
if account then
  restate_allowance(account, account.allowance > 0 and account.allowance or hold_allowance)
  packs = read_packs(packs_key, account)
  paid_packs, split = pay(account, packs, period, change, since, booked_split, hold_allowance)
  count(account, period, change, paid_packs, cost_change)
  threshold, seq = crossed(account, period, ARGV[6]), account.seq + 1
  account.seq = seq
end
count(member, period, change, 0, cost_change)

-- on the server: first what may fail, and last the sorted sets, which were not read: a spoilt one
-- cannot make a second charge; across epochs, or of a release, only a mark tells a repetition
local stream_id = redis.call('XADD', outbox_key, '*', 'e', event, 'b', string.format(
  '%d %d %d %d %d %d %d %d %d %d %d %d %s', epoch, seq, period, is_open and found.hold or 0,
  change - paid_packs, paid_packs, overdraft, booked, booked_cost, was and 1 or 0,
  tier and tier_starts or 0, threshold, split))
local ending = (not found or hold_epoch < epoch or kind == 'release') and 'd'
ending = kind == 'expire' and string.format('x %d %d %d %d %s', charge, cost, found.hold, since,
                                            split) or ending
if ending then
  redis.call('HSET', holds_key, rid, ending)
else
  redis.call('HDEL', holds_key, rid)
end
store_packs(packs_key, packs)
store_all(account, member, tier, held, held_nano_gbp, open, change)
redis.call('ZREM', leases_key, lease_member)
if ending then
  redis.call('ZADD', endings_key, now + BOOKED_MS, lease_member)
elseif was then
  redis.call('ZREM', endings_key, lease_member)
end
return answer(was and 2 or is_open and 1 or 3, threshold, change - paid_packs, paid_packs,
              overdraft, stream_id)
