#!lua flags=allow-oom
-- purpose: take back a charge that was counted twice: the ledger has its event already.
-- promise: taken back once however often it is sent, and only where it was counted: an account that
--          was brought back after that event never counted it.
-- prelude: values amounts account packs spending tier counting charge outbox
-- KEYS: 1 meta · 2 account · 3 holds · 4 kept endings · 5 packs · 6 tier
--       7 account of the member (only where the payer is a team)
-- ARGV: 1 rid of the correction · 2 member among the endings ("<account> <rid>")
--       3 epoch of the event · 4 stream id of the event · 5 period start, ms · 6 charge, tokens
--       7 cost, nano-GBP · 8 start of a capped tier's period, ms, else '' · 9 what packs paid
--       10 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid. Codes: 1 taken back · 0 not counted, or taken back before · -1 meta missing
-- invariants: the figures are what they were without the event, whatever became of its packs since.
--             Nothing goes to the outbox: the ledger counts the event once as it is.
-- cost: TIME, 2 to 4 HMGET, 2 to 5 HGET, 1 HGETALL where there are packs, 1 ZADD, an HSET each for
--       mark, account, member, tier, pack (two for an account's period before). Loops over packs.

local meta_key, account_key, holds_key, endings_key, packs_key, tier_key, member_key = unpack(KEYS)
local rid, lease_member, stream_id, tier_starts, split = ARGV[1], ARGV[2], ARGV[4], ARGV[8], ARGV[9]
local KEPT_MS = 86400000
local event_epoch, period, charge, cost = amount(ARGV[3]), amount(ARGV[5]), signed(ARGV[6]),
  signed(ARGV[7])

-- Undo a split, and tell its sum; nil when it is none. A negative part, which was given back twice,
-- is taken as far as the pack has it.
local function take_back(packs)
  local total = 0
  for id, part in string.gmatch(split, '([^:,]+):([^:,]+)') do
    local tokens = signed(part)
    if not tokens then
      return nil
    end
    total = total + tokens
    for _, pack in ipairs(packs) do
      if pack.id == id then
        pack.left, pack.changed = math.max(0, pack.left + tokens), true
      end
    end
  end
  return total
end

if not (event_epoch and period and charge and cost and string.find(stream_id, '^%d+%-%d+$'))
   or not (tier_starts == NONE or amount(tier_starts)) or rid == NONE or not take_back({}) then
  return redis.error_reply('ERR correct: an argument is not of its kind')
end
local epoch, now = read_meta(meta_key, ARGV[10])
if not now then
  return redis.error_reply('ERR correct: a clock of the caller is refused')
elseif epoch == 0 then
  return { -1, rid }
end

local function counted_by(account) -- only what came after it was brought back
  return account and is_past(stream_id, redis.call('HGET', account.key, 'b')) and account or nil
end
local account = counted_by(read_counted(epoch, account_key))
local member = counted_by(read_counted(epoch, member_key))
local tier, packs = read_tier(tier_key, tier_starts, epoch), {} -- it counts all of this epoch
if event_epoch ~= epoch or not (account or member or tier)
   or redis.call('HGET', holds_key, rid) then
  return { 0, rid }
end
if account then
  packs = read_packs(packs_key, account)
  count(account, period, -charge, -take_back(packs), -cost)
end
count(member, period, -charge, 0, -cost)

redis.call('ZADD', endings_key, now + KEPT_MS, lease_member) -- first: only this may still fail
redis.call('HSET', holds_key, rid, 'd')
store_packs(packs_key, packs)
store_all(account, member, tier, 0, 0, 0, -charge)
return { 1, rid }
