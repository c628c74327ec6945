#!lua
-- purpose: decide whether a call fits, and hold what it may cost.
-- promise: all limits are checked together and the hold is made in the same step, or nothing is;
--          the same rid asks once however often it is sent. A refusal is not stored. Of a shadow
--          tier the hold is made whatever the limits say, and what they say is told.
-- prelude: values account packs tier counting limits
-- KEYS: 1 meta · 2 account · 3 holds · 4 leases · 5 packs · 6 tier
--       7 account of the member (only where the payer is a team)
-- ARGV: 1 rid · 2 lease member ("<account> <rid>") · 3 amounts, with single spaces: revision of the
--       payer as it was read, of the caller (the member, else the payer), period start ms, its
--       end ms, prompt tokens, output tokens wanted a choice, the least of them, choices, cost of
--       the prompt in nano-GBP, of an output token, lease ms (0: only ask), allowance in tokens
--       4 limits, with single spaces, one that is not set is empty: member's tokens, start of a
--       capped tier's period ms, budget in nano-GBP, concurrent holds, requests a minute, tokens
--       a minute, 1 for shadow · 5 tail (JSON)
--       6 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid, output granted a choice, hold, hold in nano-GBP, used, held, limit, packs,
--          nano-GBP spent, period start (the hold's), period end, now, wait ms, revision of the
--          payer, of the caller, epoch, code a shadow tier was spared (0: none). Codes: 1 held
--          2 held before · -1 meta missing, or wait · -2 an account is missing or being hydrated
--          -3 other revision · -4 caller's period is not now · -5 this rid has ended
--          -10 month used up · -11 fits once open holds end · -12 member used up · -13 tier used up
--          -14 budget spent · -15 too many holds · -16 too many requests · -17 too many tokens
-- invariants: after a grant, used + held <= limit for each limit, but for a shadow tier; held = sum
--             of open holds; one lease a hold. A minute's bucket never holds more than the limit.
-- cost: TIME, 2 to 4 HMGET, 1 to 3 HGET, HGETALL where there are packs; for a grant 1 ZADD and an
--       HSET each for hold, account (two in a new period), member, tier, buckets. Loops over packs.

local meta_key, account_key, holds_key, leases_key, packs_key, tier_key, member_key = unpack(KEYS)
local rid, lease_member, tail = ARGV[1], ARGV[2], ARGV[5]
local rev, caller_rev, starts, ends, prompt, wanted, least, choices, prompt_cost, output_cost,
  lease_ms, limit = string.match(ARGV[3],
  '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
local member_limit, tier_starts, budget, concurrent, requests_a_minute, tokens_a_minute, shadow =
  read_limits(ARGV[4])
if not (limit and member_limit) or rid == NONE then
  return redis.error_reply('ERR reserve: an argument is not a whole amount')
end
rev, caller_rev, starts, ends, prompt = rev + 0, caller_rev + 0, starts + 0, ends + 0, prompt + 0
wanted, least, choices, prompt_cost = wanted + 0, least + 0, choices + 0, prompt_cost + 0
output_cost, lease_ms, limit = output_cost + 0, lease_ms + 0, limit + 0
if math.max(rev, caller_rev, starts, ends, prompt, wanted, choices, prompt_cost, output_cost,
            lease_ms, limit) >= LARGE or least > wanted or choices < 1 then
  return redis.error_reply('ERR reserve: an argument is out of its range')
end

local epoch, now, quiet_until = read_meta(meta_key, ARGV[6])
if not now then
  return redis.error_reply('ERR reserve: a clock of the caller is refused')
elseif epoch == 0 or now < quiet_until then -- after a loss gateways first bring what they know
  return { -1, rid, 0, 0, 0, 0, 0, limit, 0, 0, 0, 0, now, math.max(0, quiet_until - now), 0, 0,
           epoch }
end
local account, member = read_account(account_key), member_key and read_account(member_key)
if not in_force(account, epoch) or account.hydrating
   or (member_key and (not in_force(member, epoch) or member.hydrating)) then
  return { -2, rid, 0, 0, 0, 0, 0, limit, 0, 0, 0, 0, now, 0, 0, 0, epoch }
end
local caller, packs_left, spared = member or account, 0, 0
local used, held, shown_limit = against_allowance(account), account.held, limit

local function answer(code, wait, output, hold, cost)
  return { code, rid, output or 0, hold or 0, cost or 0, math.max(0, used), held, shown_limit,
           packs_left, account.nano_gbp, account.starts, account.ends, now, wait or 0, account.rev,
           caller.rev, epoch, spared }
end

local before, tier = redis.call('HGET', holds_key, rid), read_tier(tier_key, tier_starts, epoch)
if before then
  local output, hold, cost, period = string.match(before, '^h (%d+) (%d+) (%d+) (%d+) ')
  account.starts = (period or account.starts) + 0 -- a hold stays in the period it was made in
  return answer(output and 2 or -5, 0, (output or 0) + 0, (hold or 0) + 0, (cost or 0) + 0)
elseif now < starts or now >= ends or not runs(tier, tier_starts, now) then
  return answer(-4)
elseif account.rev ~= rev or (member and member.rev ~= caller_rev) then
  return answer(-3)
end

-- the limits of a period, then those of the moment
roll(account, now, starts, ends)
roll(member, now, starts, ends)
used, packs_left = against_allowance(account), left_in(read_packs(packs_key, account), now)
local output = most_output(account, member, tier, packs_left, {
  prompt = prompt, wanted = wanted, least = least, choices = choices, limit = limit,
  member_limit = member_limit, budget = budget, prompt_cost = prompt_cost,
  output_cost = output_cost })
local buckets, code, wait = {}, output, output == -11 and 0 or account.ends - now
if output == -13 and prompt + least * choices <= tier.free then
  wait = 1000 -- other shards may have it: it is shared out anew every second
elseif output >= 0 then
  output = within_minute(output, least, prompt, choices, tokens_a_minute)
  buckets, code, wait = now_fits(caller, concurrent, requests_a_minute, tokens_a_minute,
                                 prompt + output * choices, now)
end
if code < 0 and shadow == NONE then
  if code == -12 then
    used, held, shown_limit = against_allowance(member), member.held, member_limit + 0
  end
  return answer(code, wait)
elseif shadow ~= NONE then -- nothing is lowered, and what is spared takes nothing of a minute
  output, spared = wanted, math.min(0, code)
end
local hold, cost = prompt + output * choices, prompt_cost + output * choices * output_cost
if hold >= LARGE or cost >= LARGE then -- what is written must be read again as amounts
  return redis.error_reply('ERR reserve: an argument is out of its range')
end
if lease_ms == 0 then return answer(1, 0, output, hold, cost) end -- who only asks is told that

-- the grant; the lease first: only this may still fail
redis.call('ZADD', leases_key, string.format('%d', now + lease_ms), lease_member)
redis.call('HSET', holds_key, rid, string.format('h %d %d %d %d %d 0 %s', output, hold, cost,
                                                 account.starts, now, tail))
restate_allowance(account, limit)
store_all(account, member, tier, hold, cost, 1, 0)
if #buckets > 0 then
  redis.call('HSET', caller.key, unpack(buckets))
end
held = account.held
return answer(1, 0, output, hold, cost)
