#!lua
-- purpose: bring a missing account back from the ledger, in two steps.
-- promise: what is settled between the steps is counted once; of several gateways one finishes;
--          an account in force is never touched.
-- prelude: values amounts account told outbox
-- KEYS: 1 meta · 2 account · 3 packs · 4 outbox · 5 holds (only for a payer)
-- ARGV: 1 step: begin | finish · 2 period start ms · 3 period end ms · 4 token (finish)
--       5 settled tokens · 6 of these from packs · 7 adjusted tokens, signed · 8 cost nano-GBP
--       9 revision · 10 packs ("id tokens ends_ms,…", or '')
--       11 now ms (only where meta says clock = test), else ''
-- RETURNS: code, token, stream id, epoch, period start. Codes: 1 begun (or joined) · 2 in force
--          3 finished · 4 the sums are older than what was projected meanwhile: read them again
--          0 another finished first · -1 meta missing
-- invariants: `y`, the token, marks an account whose sums are still in the ledger only; those of
--             events up to `b`, the stream id at its begin, are added once.
-- cost: TIME, 2 HMGET, 1 or 2 HGET; to finish 1 HSET, 1 HDEL, and 1 HSET a pack; to begin 1 EXISTS,
--       1 XINFO, 1 HGETALL, 1 DEL, 2 HSET, and 1 HSET an open hold. Loops over packs and holds.

local meta_key, account_key, packs_key, outbox_key, holds_key = unpack(KEYS)
local step, token = ARGV[1], ARGV[4]
local settled, from_packs, adjusted = signed(ARGV[5]), signed(ARGV[6]), signed(ARGV[7])
local cost, rev, told = signed(ARGV[8]), amount(ARGV[9]), read_told(ARGV[10])
if not (are_amounts(2, 3) and settled and from_packs and adjusted and cost and rev and told)
   or (step ~= 'begin' and step ~= 'finish') then
  return redis.error_reply('ERR hydrate: an argument is not of its kind')
end

local epoch, now = read_meta(meta_key, ARGV[11])
if not now then
  return redis.error_reply('ERR hydrate: a clock of the caller is refused')
elseif epoch == 0 then
  return { -1, NONE, NONE, 0, 0 }
end
local account = read_account(account_key)
local there = in_force(account, epoch)
if there and not account.hydrating then
  return { step == 'begin' and 2 or 0, NONE, NONE, epoch, account.starts }
end
local base = there and redis.call('HGET', account_key, 'b')
if step == 'begin' and there then
  return { 1, account.hydrating, base, epoch, account.starts }
end
if step == 'finish' then
  if not there or account.hydrating ~= token then
    return { 0, NONE, NONE, epoch, there and account.starts or 0 }
  end
  if account.rev > rev then
    return { 4, token, base, epoch, account.starts }
  end
  account.settled, account.from_packs = account.settled + settled, account.from_packs + from_packs
  account.nano_gbp, account.adjusted = account.nano_gbp + cost, adjusted
  account.rev, account.hydrating, account.is_restated = rev, nil, true
  merge_packs(packs_key, account, told, {})
  store(account, 0, 0, 0)
  redis.call('HDEL', account_key, 'y')
  return { 3, token, base, epoch, account.starts }
end

local newest = newest_id(outbox_key)
token = string.format('%d:%d:%s', epoch, now, newest)
-- An open hold of an older epoch becomes an orphan: nothing is held by it any more, but its charge
-- is still to come. Kept endings stay: without them a repeated settlement would count again.
local kept = holds_key and redis.call('HGETALL', holds_key) or {}
for place = 1, #kept, 2 do
  if string.find(kept[place + 1], '^h %d+ %d+ %d+ %d+ %d+ %d+ ') then
    redis.call('HSET', holds_key, kept[place], 'o' .. string.sub(kept[place + 1], 2))
  end
end
redis.call('DEL', account_key, packs_key)
redis.call('HSET', account_key, 'b', newest, 'y', token)
store({ key = account_key, epoch = epoch, rev = 0, starts = ARGV[2] + 0, ends = ARGV[3] + 0,
        adjusted = 0, packs = 0, allowance = 0, hydrating = token, settled = 0, from_packs = 0,
        nano_gbp = 0, seq = 0, warned = 0, held = 0, open = 0, held_nano_gbp = 0,
        is_restated = true }, 0, 0, 0)
return { 1, token, newest, epoch, ARGV[2] + 0 }
