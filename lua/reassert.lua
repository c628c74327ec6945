#!lua flags=allow-oom
-- purpose: hold again, after an epoch was raised, what a living gateway still has open.
-- promise: an open hold of an older epoch is held in this one, whatever room is left; one that has
--          ended stays ended; the same rid is held once however often it is sent.
-- prelude: values account tier counting
-- KEYS: 1 meta · 2 account · 3 holds · 4 leases · 5 tier
--       6 account of the member (only where the payer is a team)
-- ARGV: 1 rid · 2 lease member ("<account> <rid>") · 3 amounts, with single spaces: epoch of the
--       hold, period start of the hold ms, output granted a choice, tokens held, nano-GBP held,
--       progress in tokens, lease ms · 4 start of a capped tier's period ms, else ''
--       5 tail (JSON) · 6 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid, now. Codes: 1 held again · 2 held already
--          0 ended, or made in this epoch, within which absent means ended
--          -1 meta missing, or of an epoch before the hold's · -2 an account is missing
-- invariants: held = sum of open holds; one lease a hold. An account that is being hydrated holds
--             like any other, so nothing fits into this room before its sums are there. No limit is
--             asked and no minute's bucket filled: the call was admitted before the loss.
-- cost: TIME, 2 to 4 HMGET, 1 to 3 HGET, 1 ZADD, an HSET each for hold, account, member, and one or
--       two for the tier. No loop.

local meta_key, account_key, holds_key, leases_key, tier_key, member_key = unpack(KEYS)
local rid, lease_member, tier_starts, tail = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local hold_epoch, period, output, hold, cost, progress, lease_ms =
  string.match(ARGV[3], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
if not lease_ms or rid == NONE or not (tier_starts == NONE or amount(tier_starts)) then
  return redis.error_reply('ERR reassert: an argument is not a whole amount')
end
hold_epoch, period, output, hold, cost = hold_epoch + 0, period + 0, output + 0, hold + 0, cost + 0
progress, lease_ms = progress + 0, lease_ms + 0
if math.max(hold_epoch, period, output, hold, cost, progress, lease_ms) >= LARGE then
  return redis.error_reply('ERR reassert: an argument is out of its range')
end

local epoch, now = read_meta(meta_key, ARGV[6])
if not now then
  return redis.error_reply('ERR reassert: a clock of the caller is refused')
elseif epoch == 0 or epoch < hold_epoch then
  return { -1, rid, now }
end
local found = redis.call('HGET', holds_key, rid)
local state, since, reached =
  string.match(found or NONE, '^([ho]) %d+ %d+ %d+ %d+ (%d+) (%d+) ')
if not state and (found or hold_epoch == epoch) then
  return { 0, rid, now }
end
local account, member = read_account(account_key), member_key and read_account(member_key)
if not in_force(account, epoch) or (member_key and not in_force(member, epoch)) then
  return { -2, rid, now } -- what is held is forgotten where an account is begun
elseif state == 'h' then
  return { 2, rid, now }
end
local tier = read_tier(tier_key, tier_starts, epoch)

-- the lease first: only this may still fail
redis.call('ZADD', leases_key, string.format('%d', now + lease_ms), lease_member)
redis.call('HSET', holds_key, rid, string.format(
  'h %d %d %d %d %d %d %s', output, hold, cost, period, (since or now) + 0,
  math.max(progress, (reached or 0) + 0), tail))
store_all(account, member or nil, tier, hold, cost, 1, 0)
return { 1, rid, now }
