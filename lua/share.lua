#!lua
-- purpose: hand out what this shard may give of a capped tier, in rounds over all shards.
-- promise: a share never falls below what is settled and held. What an older round sends late, or
--          of another epoch, changes nothing, so nobody is given what was given to another since.
--          Nothing is given before what earlier epochs settled is counted, which it is once.
-- prelude: values amounts tier outbox
-- KEYS: 1 meta · 2 tier · 3 outbox
-- ARGV: 1 round · 2 start of the tier's period ms · 3 epoch that the rest is about, else ''
--       4 settled by earlier epochs in this period, by the ledger, signed, else ''
--       5 share wanted, else '' · 6 what was free of the whole cap in the round before, else ''
--       7 now ms (only where meta says clock = test), else ''
-- RETURNS: code, epoch, share, settled, held, newest id of the stream, now.
--          Codes: 1 so it stands · 2 so it stands, what earlier epochs settled is not counted yet
--          0 a newer round has begun · -1 meta missing · -3 other epoch · -4 period is not now
-- invariants: whoever has seen every shard in a round knows all shares until a newer round begins.
-- cost: TIME, 2 HMGET, 1 EXISTS, 1 XINFO, 1 HGET where the caller tells a time, 1 HSET. No loop.

local meta_key, tier_key, outbox_key = unpack(KEYS)
local starts, told_epoch, earlier, wanted = ARGV[2], ARGV[3], signed(ARGV[4]), amount(ARGV[5])
local round, free = amount(ARGV[1]), amount(ARGV[6])
if not (round and amount(starts)) or not (told_epoch == NONE or amount(told_epoch))
   or not (earlier or ARGV[4] == NONE) or not (wanted or ARGV[5] == NONE)
   or not (free or ARGV[6] == NONE) then
  return redis.error_reply('ERR share: an argument is not of its kind')
end
local epoch, now = read_meta(meta_key, ARGV[7])
if not now then
  return redis.error_reply('ERR share: a clock of the caller is refused')
elseif epoch == 0 then
  return { -1, 0, 0, 0, 0, '0-0', now }
end
local tier = read_tier(tier_key, starts, epoch)
local found = redis.call('HMGET', tier_key, 't', 'r', 'f')
local is_whole = not tier.begins and found[2] == '1'

local function answer(code)
  return { code, epoch, tier.share, tier.settled, tier.held, newest_id(outbox_key), now }
end

if (found[1] or 0) + 0 > round then
  return answer(0)
elseif told_epoch ~= NONE and told_epoch + 0 ~= epoch then
  return answer(-3)
elseif not runs(tier, starts, now) then
  return answer(-4)
end
if earlier and told_epoch ~= NONE and not is_whole and tier.is_now then
  tier.settled, is_whole = tier.settled + earlier, true
end
if wanted and told_epoch ~= NONE and is_whole then
  tier.share = math.max(wanted, tier.settled + tier.held)
end
redis.call('HSET', tier_key, 'e', epoch, 't', round, 'r', is_whole and 1 or 0, 'c', tier.share,
           'p', tier.period, 's', tier.settled, 'h', tier.held, 'f', free or found[3] or 0)
return answer(is_whole and 1 or 2)
