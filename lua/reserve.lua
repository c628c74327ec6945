#!lua
-- purpose: decide whether a call fits, and hold what it may cost.
-- promise: all limits are checked together and the hold is made in the same step, or nothing is;
--          the same rid asks once however often it is sent. A refusal is not stored.
-- prelude: values account packs tier limits
-- KEYS: 1 meta · 2 account · 3 holds · 4 leases · 5 packs · 6 tier
--       7 account of the member (only where the payer is a team)
-- ARGV: 1 rid · 2 lease member ("<account> <rid>") · 3 revision of the payer as it was read
--       4 revision of the caller (the member, else the payer) · 5 period start ms
--       6 period end ms · 7 prompt, tokens · 8 output wanted a choice, tokens
--       9 least output a choice, tokens · 10 choices · 11 cost of the prompt, nano-GBP
--       12 cost of an output token, nano-GBP · 13 lease ms · 14 allowance, tokens
--       15 member's tokens · 16 start of a capped tier's period, ms · 17 budget, nano-GBP
--       18 concurrent holds · 19 requests a minute · 20 tokens a minute (15 to 20: '' for none)
--       21 tail (JSON)
--       22 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid, output granted a choice, hold, hold in nano-GBP, used, held, limit, packs,
--          nano-GBP spent, period start (the hold's), period end, now, wait ms, revision of the
--          payer, of the caller, epoch. Codes: 1 held · 2 held before · -1 meta missing, or wait
--          -2 an account is missing or being hydrated · -3 other revision
--          -4 caller's period is not now · -5 this rid has ended · -10 month used up
--          -11 fits once open holds end · -12 member used up · -13 tier used up
--          -14 budget spent · -15 too many holds · -16 too many requests · -17 too many tokens
-- invariants: after a grant, used + held <= limit for each limit; held = sum of open holds; one
--             lease a hold. A minute's bucket never holds more than the limit.
-- cost: TIME, 1 or 2 HMGET, 2 to 5 HGET, HGETALL where there are packs; for a grant 1 ZADD and an
--       HSET each for hold, account, member, tier, buckets. Loops over packs.

local meta_key, account_key, holds_key, leases_key, packs_key, tier_key, member_key = unpack(KEYS)
local rid, lease_member, tail = ARGV[1], ARGV[2], ARGV[21]
if not are_amounts(3, 14) or not are_given(15, 20) or rid == NONE then
  return redis.error_reply('ERR reserve: an argument is not a whole amount')
end
local starts, ends, prompt, least = ARGV[5] + 0, ARGV[6] + 0, ARGV[7] + 0, ARGV[9] + 0
local choices, output_cost, limit, member_limit = ARGV[10] + 0, ARGV[12] + 0, ARGV[14] + 0, ARGV[15]
local budget, concurrent, requests_a_minute, tokens_a_minute = unpack(ARGV, 17, 20)
if least > ARGV[8] + 0 or choices < 1 then
  return redis.error_reply('ERR reserve: an argument is out of its range')
end

local epoch, now, quiet_until = read_meta(meta_key, ARGV[22])
if not now then
  return redis.error_reply('ERR reserve: a clock of the caller is refused')
end
local account, member, packs_left = { starts = 0, ends = 0, rev = 0, nano_gbp = 0 }, nil, 0
local shown = { used = 0, held = 0, limit = limit }

local function answer(code, wait, output, hold, cost)
  return { code, rid, output or 0, hold or 0, cost or 0, math.max(0, shown.used), shown.held,
           shown.limit, packs_left, account.nano_gbp, account.starts, account.ends, now, wait or 0,
           account.rev, (member or account).rev, epoch }
end

if epoch == 0 or now < quiet_until then -- after a loss gateways first bring what they know
  return answer(-1, math.max(0, quiet_until - now))
end
local found, of_member = read_account(account_key), member_key and read_account(member_key)
if not in_force(found, epoch) or found.hydrating
   or (member_key and (not in_force(of_member, epoch) or of_member.hydrating)) then
  return answer(-2)
end
account, member = found, of_member
shown.used, shown.held = against_allowance(account), account.held

local before = redis.call('HGET', holds_key, rid)
if before then
  local output, hold, cost, period = string.match(before, '^h (%d+) (%d+) (%d+) (%d+) ')
  account.starts = (period or account.starts) + 0 -- a hold stays in the period it was made in
  return answer(output and 2 or -5, 0, (output or 0) + 0, (hold or 0) + 0, (cost or 0) + 0)
elseif now < starts or now >= ends then
  return answer(-4)
elseif account.rev ~= ARGV[3] + 0 or (member and member.rev ~= ARGV[4] + 0) then
  return answer(-3)
end

-- the limits of a period
roll(account, now, starts, ends)
roll(member, now, starts, ends)
shown.used, packs_left = against_allowance(account), left_in(read_packs(packs_key, account), now)
local tier = read_tier(tier_key, ARGV[16], epoch)
local output = most_output(account, member, tier, packs_left, {
  prompt = prompt, wanted = ARGV[8] + 0, least = least, choices = choices, limit = limit,
  member_limit = member_limit, budget = budget, prompt_cost = ARGV[11] + 0,
  output_cost = output_cost })
if output == -12 then
  shown = { used = against_allowance(member), held = member.held, limit = member_limit + 0 }
end
if output < 0 then
  return answer(output, output == -11 and 0 or account.ends - now)
end

-- the limits of the moment
local caller = member or account
if concurrent ~= NONE and caller.open >= concurrent + 0 then
  return answer(-15)
end
if tokens_a_minute ~= NONE then -- a larger hold could never pass, however long one waits
  output = math.min(output, math.max(least, math.floor((tokens_a_minute - prompt) / choices)))
end
local hold, cost = prompt + output * choices, ARGV[11] + output * choices * output_cost
if hold >= 1e15 or cost >= 1e15 then -- what is written must be read again as amounts
  return redis.error_reply('ERR reserve: an argument is out of its range')
end
local buckets, code, wait = minute(caller.key, requests_a_minute, tokens_a_minute, hold, now)
if code then
  return answer(code, wait)
end

-- the grant
redis.call('ZADD', leases_key, now + ARGV[13], lease_member) -- first: only this may still fail
redis.call('HSET', holds_key, rid, string.format('h %d %d %d %d %d 0 %s', output, hold, cost,
                                                 account.starts, now, tail))
account.allowance = limit
store_all(account, member, tier, hold, cost, 1, 0)
if #buckets > 0 then
  redis.call('HSET', caller.key, unpack(buckets))
end
shown.held = account.held
return answer(1, 0, output, hold, cost)
