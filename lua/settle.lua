#!lua flags=allow-oom
-- purpose: end a hold, charge what it cost, and append the event to the outbox.
-- promise: a hold ends once; the charge and its event are one step; a charge is never refused,
--          memory full or not. Repeating a rid changes nothing.
-- prelude: account
-- KEYS: 1 meta · 2 account · 3 holds · 4 leases · 5 outbox · 6 kept endings
-- ARGV: 1 rid · 2 member ("<account> <rid>") · 3 kind: settle | release | expire
--       4 epoch of the hold · 5 period start of the hold, ms · 6 charge, tokens
--       7 cost, nano-GBP · 8 grace ms (expire) · 9 event (JSON; a release has none)
--       10 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid, used, held, limit, overdraft, stream id. Codes: 1 settled (or expired)
--          0 nothing open · 2 an expired hold corrected · 3 booked late, hold lost with an epoch
--          4 released · 5 the lease still runs · -1 meta missing
-- invariants: held falls by the hold; settled of the hold's own period rises by the charge; the
--             outbox gets one event a charge, numbered without gaps within the account.
--             Kept endings: "v" released unseen, 60 s (a reserve that comes late finds it);
--             "x tokens nano_gbp" expired, 24 h (a settle that comes late corrects it);
--             "d" booked late, 24 h (its repetition finds it).
-- cost: TIME, 2 HMGET, 1 HGET, 1 XADD, 1 HSET, 1 HDEL, 1 ZREM; an expiry also 1 ZSCORE, a kept
--       ending 1 HSET and 1 ZADD. No loop.

local meta_key, account_key, holds_key, leases_key, outbox_key, endings_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local rid, member, kind, hold_epoch = ARGV[1], ARGV[2], ARGV[3], amount(ARGV[4])
local hold_period, charge, cost = amount(ARGV[5]), amount(ARGV[6]), amount(ARGV[7])
local grace_ms, event = amount(ARGV[8]), ARGV[9]
local UNSEEN_MS, BOOKED_MS = 60000, 86400000
if not (hold_epoch and hold_period and charge and cost and grace_ms) or rid == NONE
   or (kind ~= 'settle' and kind ~= 'release' and kind ~= 'expire') then
  return redis.error_reply('ERR settle: an argument is not of its kind')
end

local meta = redis.call('HMGET', meta_key, 'e', 'clock')
local now = server_ms(meta[2], ARGV[10])
if not now then
  return redis.error_reply('ERR settle: a clock of the caller is refused')
end
local epoch = tonumber(meta[1] or '0')
local account = read_account(account_key)
account = in_force(account, epoch) and account or nil

local function answer(code, overdraft, stream_id)
  local a = account or { settled = 0, adjusted = 0, held = 0, allowance = 0 }
  return { code, rid, used_tokens(a), a.held, a.allowance, overdraft or 0, stream_id or NONE }
end

if not meta[1] then
  return answer(-1)
end
local found = redis.call('HGET', holds_key, rid)
local _, hold, period = string.match(found or NONE, '^h (%d+) (%d+) (%d+) ')
hold, period = tonumber(hold), tonumber(period) or hold_period
local booked, booked_cost = string.match(found or NONE, '^x (%d+) (%d+)$')
local was, was_cost = tonumber(booked) or 0, tonumber(booked_cost) or 0

-- Writes follow the one that may fail (XADD): absolute values, into keys that were read above. The
-- sorted sets come last, so that a spoilt one cannot make a second charge.
local function save(charge_change, cost_change, events)
  if not account then return end
  if hold then
    account.held, account.open = account.held - hold, account.open - 1
  end
  if period == account.starts then
    account.settled = account.settled + charge_change
    account.nano_gbp = account.nano_gbp + cost_change
  elseif period == account.last_starts then
    account.last_settled = account.last_settled + charge_change
  end
  redis.call('HSET', account_key, 's', whole(account.settled), 'ls', whole(account.last_settled),
             'h', whole(account.held), 'n', whole(account.open), 'g', whole(account.nano_gbp),
             'q', whole(account.seq + events))
end

if kind == 'release' then
  if hold then
    save(0, 0, 0)
    redis.call('HDEL', holds_key, rid)
    redis.call('ZREM', leases_key, member)
  elseif not found then
    redis.call('ZADD', endings_key, whole(now + UNSEEN_MS), member)
    redis.call('HSET', holds_key, rid, 'v')
  end
  return answer(4)
end

if kind == 'expire' then
  local deadline = redis.call('ZSCORE', leases_key, member)
  if not hold or not deadline then
    return answer(0)
  end
  if tonumber(deadline) + grace_ms > now then
    return answer(5)
  end
elseif not hold and not booked and (found or hold_epoch >= epoch) then
  return answer(0)
end

local overdraft = hold and math.max(0, charge - hold) or 0
local seq = account and account.seq + 1 or 0
local stream_id = redis.call('XADD', outbox_key, '*', 'e', event, 'b', table.concat({
  whole(epoch), whole(seq), whole(period), whole(hold or 0), whole(charge - was), '0',
  whole(overdraft), whole(was), whole(was_cost), booked and '1' or '0' }, ' '))
-- Within an epoch, absent means ended; across epochs only a mark can tell.
local ending = (not found or hold_epoch < epoch) and 'd'
if kind == 'expire' then
  ending = 'x ' .. whole(charge) .. ' ' .. whole(cost)
end
if ending then
  redis.call('HSET', holds_key, rid, ending)
else
  redis.call('HDEL', holds_key, rid)
end
save(charge - was, cost - was_cost, 1)
redis.call('ZREM', leases_key, member)
if ending then
  redis.call('ZADD', endings_key, whole(now + BOOKED_MS), member)
elseif booked then
  redis.call('ZREM', endings_key, member)
end
return answer(booked and 2 or hold and 1 or 3, overdraft, stream_id)
