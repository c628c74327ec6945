#!lua
-- purpose: bring a missing account back from the ledger, in two steps.
-- promise: what is settled between the steps is counted once; of several gateways one finishes;
--          an account in force is never touched.
-- prelude: account
-- KEYS: 1 meta · 2 account · 3 holds · 4 outbox
-- ARGV: 1 step: begin | finish · 2 period start ms · 3 period end ms · 4 token (finish)
--       5 settled tokens · 6 adjusted tokens, signed · 7 cost nano-GBP · 8 revision
--       9 now ms (only where meta says clock = test), else ''
-- RETURNS: code, token, stream id, epoch, period start. Codes: 1 begun (or joined) · 2 in force
--          3 finished · 0 another finished first · -1 meta missing
-- invariants: `y` = "<token> <stream id>" marks an account whose sums are still in the ledger only;
--             the sums of events up to that id are added once, by whoever holds the token.
-- cost: TIME, 2 HMGET, and to finish 1 HSET, 1 HDEL; to begin 1 EXISTS, 1 XINFO, 1 HGETALL, 1 DEL,
--       1 HSET, and 1 HDEL a hold of an older epoch: the one loop.

local meta_key, account_key, holds_key, outbox_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local step, starts, ends, token = ARGV[1], amount(ARGV[2]), amount(ARGV[3]), ARGV[4]
local settled, adjusted = signed(ARGV[5]), signed(ARGV[6])
local cost, rev = signed(ARGV[7]), amount(ARGV[8])
if not (starts and ends and settled and adjusted and cost and rev)
   or (step ~= 'begin' and step ~= 'finish') then
  return redis.error_reply('ERR hydrate: an argument is not of its kind')
end

local meta = redis.call('HMGET', meta_key, 'e', 'clock')
local now = server_ms(meta[2], ARGV[9])
if not now then
  return redis.error_reply('ERR hydrate: a clock of the caller is refused')
end
if not meta[1] then
  return { -1, NONE, NONE, 0, 0 }
end
local epoch = tonumber(meta[1])
local account = read_account(account_key)
local there = in_force(account, epoch)
if there and not account.hydrating then
  return { step == 'begin' and 2 or 0, NONE, NONE, epoch, account.starts }
end
if there then
  local held_token, last_id = string.match(account.hydrating, '^(%S+) (%S+)$')
  if step == 'begin' then
    return { 1, held_token, last_id, epoch, account.starts }
  end
  if held_token ~= token then
    return { 0, NONE, NONE, epoch, account.starts }
  end
  if account.rev > rev then -- a projection came in between and knows better
    rev, adjusted = account.rev, account.adjusted
  end
  redis.call('HSET', account_key, 's', whole(account.settled + settled), 'adj', whole(adjusted),
             'g', whole(account.nano_gbp + cost), 'r', whole(rev))
  redis.call('HDEL', account_key, 'y')
  return { 3, token, last_id, epoch, account.starts }
end
if step == 'finish' then
  return { 0, NONE, NONE, epoch, 0 }
end

local newest = newest_id(outbox_key)
token = whole(epoch) .. ':' .. whole(now) .. ':' .. newest
-- Open holds of an older epoch mean nothing any more. Kept endings stay: without them a repeated
-- settlement would count a second time.
local kept = redis.call('HGETALL', holds_key)
for place = 1, #kept, 2 do
  if string.sub(kept[place + 1], 1, 2) == 'h ' then
    redis.call('HDEL', holds_key, kept[place])
  end
end
redis.call('DEL', account_key)
redis.call('HSET', account_key, 'e', whole(epoch), 'r', '0', 'ps', whole(starts),
           'pe', whole(ends), 's', '0', 'adj', '0', 'h', '0', 'n', '0', 'g', '0', 'q', '0',
           'al', '0', 'lps', '0', 'ls', '0', 'y', token .. ' ' .. newest)
return { 1, token, newest, epoch, starts }
