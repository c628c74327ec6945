#!lua flags=allow-oom
-- purpose: end a hold, charge what it cost, and append the event to the outbox.
-- promise: a hold ends once; the charge and its event are one step; a charge is never refused,
--          memory full or not. Repeating a rid changes nothing.
-- prelude: values account packs tier charge
-- KEYS: 1 meta · 2 account · 3 holds · 4 leases · 5 outbox · 6 kept endings · 7 packs
--       8 tier · 9 account of the member (only where the payer is a team)
-- ARGV: 1 rid · 2 lease member ("<account> <rid>") · 3 kind: settle | release | expire
--       4 epoch of the hold · 5 period start of the hold, ms · 6 charge, tokens
--       7 cost, nano-GBP · 8 grace ms (expire) · 9 allowance of the hold, tokens
--       10 start of a capped tier's period, ms, else '' · 11 thresholds, percent, rising
--       12 event (JSON) · 13 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid, used, held, limit, threshold crossed, from allowance, from packs, overdraft,
--          stream id, epoch. Codes: 1 settled (or expired) · 0 nothing open
--          2 an expired hold corrected · 3 booked late, the hold is gone · 4 released
--          5 the lease still runs · -1 meta missing
-- invariants: held falls by the hold; the figures of the hold's own period rise by the charge, the
--             allowance first, then packs that lived when the hold was made, then the allowance
--             again; the outbox gets one event a charge, numbered without gaps within the account.
--             A release leaves a mark: a reserve that comes late, or twice, must find it.
-- cost: TIME, 1 or 2 HMGET, 2 to 5 HGET, 1 XADD, 1 HDEL, 1 or 2 ZREM, an HSET each for account,
--       member, tier, changed pack and kept ending; HGETALL
--       where there are packs, ZSCORE to expire, ZADD to keep. Loops over packs and thresholds.

local meta_key, account_key, holds_key, leases_key, outbox_key, endings_key, packs_key, tier_key,
  member_key = unpack(KEYS)
local rid, lease_member, kind, event = ARGV[1], ARGV[2], ARGV[3], ARGV[12]
local RELEASED_MS, BOOKED_MS = 60000, 86400000
if not are_amounts(4, 9) or not are_given(10, 10) or rid == NONE
   or (kind ~= 'settle' and kind ~= 'release' and kind ~= 'expire') then
  return redis.error_reply('ERR settle: an argument is not of its kind')
end
local hold_epoch, period, charge, cost = ARGV[4] + 0, ARGV[5] + 0, ARGV[6] + 0, ARGV[7] + 0
local epoch, now = read_meta(meta_key, ARGV[13])
if not now then
  return redis.error_reply('ERR settle: a clock of the caller is refused')
elseif epoch == 0 then
  return { -1, rid, 0, 0, 0, 0, 0, 0, 0, NONE, 0 }
end
local account, member = read_counted(epoch, account_key), read_counted(epoch, member_key)
local paid = { allowance = 0, packs = 0, overdraft = 0 }

local function answer(code, stream_id, threshold)
  return { code, rid, account and math.max(0, against_allowance(account)) or 0,
           account and account.held or 0, account and account.allowance or 0, threshold or 0,
           paid.allowance, paid.packs, paid.overdraft, stream_id or NONE, epoch }
end

local found = read_ending(redis.call('HGET', holds_key, rid))
local is_open, was = found and found.is_open, found and found.state == 'x' and found
if kind == 'expire' then
  local deadline = redis.call('ZSCORE', leases_key, lease_member)
  if not is_open or not deadline then
    return answer(0)
  elseif deadline + ARGV[8] > now then
    return answer(5)
  end
elseif (found and not is_open and not was)
       or (not found and kind == 'settle' and hold_epoch >= epoch) then
  return answer(kind == 'release' and 4 or 0)
end

local tier = read_tier(tier_key, ARGV[10], epoch)
local held, held_nano_gbp, open = 0, 0, 0
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
local booked, since = was or NOTHING_BOOKED, found and found.since or now
local change, cost_change = charge - booked.tokens, cost - booked.nano_gbp
local packs, split, threshold, seq = {}, '-', 0, 0
period = is_open and found.period or period
if found then
  paid.overdraft = math.max(0, charge - found.hold) - math.max(0, booked.tokens - found.hold)
end
if account then
  account.allowance = account.allowance > 0 and account.allowance or ARGV[9] + 0
  packs = read_packs(packs_key, account)
  paid.packs, split = pay(account, packs, period, change, since, booked.split, ARGV[9] + 0)
  count(account, period, change, paid.packs, cost_change)
  threshold, seq = crossed(account, period, ARGV[11]), account.seq + 1
  account.seq = seq
end
count(member, period, change, 0, cost_change)
paid.allowance = change - paid.packs

-- on the server: first what may fail, and last the sorted sets, which were not read: a spoilt one
-- cannot make a second charge; across epochs, or of a release, only a mark tells a repetition
local stream_id = redis.call('XADD', outbox_key, '*', 'e', event, 'b', string.format(
  '%d %d %d %d %d %d %d %d %d %d %d %d %s', epoch, seq, period, is_open and found.hold or 0,
  paid.allowance, paid.packs, paid.overdraft, booked.tokens, booked.nano_gbp, was and 1 or 0,
  tier and ARGV[10] or 0, threshold, split))
local ending = (not found or hold_epoch < epoch or kind == 'release') and 'd'
if kind == 'expire' then
  ending = string.format('x %d %d %d %d %s', charge, cost, found.hold, since, split)
end
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
return answer(was and 2 or is_open and 1 or 3, stream_id, threshold)
