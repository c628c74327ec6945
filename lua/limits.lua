-- purpose: the prelude of scripts that know limits: of a period, and of a minute.
-- promise: nothing is written; a bucket drains by the server's clock only.
-- PROVIDES: NO_LIMITS, read_limits(text), narrowed(output, least, left, held, fixed, each),
--           most_output(account, member, tier, packs_left, ask),
--           within_minute(output, least, prompt, choices, tokens),
--           pour(bucket, limit, units, now),
--           now_fits(caller, concurrent, requests, tokens, hold, now)
-- invariants: a bucket is "level at_ms": 60,000 a unit. It loses the limit each millisecond, and
--             takes nothing that would bring it over limit x 60,000: so in any t seconds at most
--             limit + limit x t / 60 units pass. A limit above 10^12 counts as that.
-- cost: one HGET a bucket.

local NO_LIMITS = '      ' -- as text, with single spaces between the seven

-- The six limits that a call may have beside the month's, and whether they are those of a shadow
-- tier, as text, '' for one that is not set; nil when they are told otherwise.
local function read_limits(text)
  if text == NO_LIMITS then
    return NONE, NONE, NONE, NONE, NONE, NONE, NONE
  end
  for number in string.gmatch(text, '%d+') do
    if not amount(number) then
      return nil
    end
  end
  return string.match(text, '^(%d*) (%d*) (%d*) (%d*) (%d*) (%d*) (%d*)$')
end

-- The output that fits one limit as well: below the least where it does so only once open holds
-- end, nil where not even then. `fixed` is what a call takes without output, `each` what one token
-- of output of every choice takes: in tokens, or in nano-GBP.
local function narrowed(output, least, left, held, fixed, each)
  if fixed + least * each > left then
    return nil
  end
  local room = left - held - fixed
  return output * each > room and math.floor(room / each) or output
end

-- The most output a choice that fits every limit of a period. Where not even the least fits: the
-- code of the limit instead; -11 when it will fit once open holds end.
local function most_output(account, member, tier, packs_left, ask)
  local prompt, each, least = ask.prompt, ask.choices, ask.least
  local output = narrowed(ask.wanted, least, packs_left + math.max(0, ask.limit -
                          against_allowance(account)), account.held, prompt, each)
  if not output then
    return -10
  end
  if member and ask.member_limit ~= NONE then
    output = narrowed(output, least, ask.member_limit - against_allowance(member), member.held,
                      prompt, each)
    if not output then
      return -12
    end
  end
  if tier then
    output = narrowed(output, least, tier.share - tier.settled, tier.held, prompt, each)
    if not output then
      return -13
    end
  end
  if ask.budget ~= NONE then
    output = narrowed(output, least, ask.budget - account.nano_gbp, account.held_nano_gbp,
                      ask.prompt_cost, each * ask.output_cost)
    if not output then
      return -14
    end
  end
  return output < least and -11 or output
end

-- The output without what a minute's limit could never take, however long one waits.
local function within_minute(output, least, prompt, choices, tokens)
  if tokens == NONE then
    return output
  end
  return math.min(output, math.max(least, math.floor((tokens - prompt) / choices)))
end

-- The bucket with `units` more in it, and in how many milliseconds it can take them (0: now).
-- Where the clock has gone back, nothing drains before it is where it was.
local function pour(bucket, limit, units, now)
  local level, at = string.match(bucket or '0 0', '^(%d+) (%d+)$')
  limit = math.min(limit, 1e12) -- what the level can be counted for
  local behind = at - now
  level = math.max(0, level + limit * math.min(0, behind)) + units * 60000
  local excess = level - limit * 60000
  return string.format('%d %d', level, math.max(now, at + 0)),
         excess > 0 and math.ceil(excess / math.max(1, limit)) + math.max(0, behind) or 0
end

-- Whether a hold fits the limits of the moment: the caller's buckets with this call in them, as
-- fields, and 1. Or no buckets, the code of the limit that it does not fit, and the wait until it
-- does; 0 if that is not known, or never.
local function now_fits(caller, concurrent, requests, tokens, hold, now)
  local buckets, wait = {}, 0
  if concurrent ~= NONE and caller.open >= concurrent + 0 then
    return buckets, -15, 0
  end
  if requests ~= NONE then
    buckets[1], buckets[2], wait =
      'mr', pour(redis.call('HGET', caller.key, 'mr'), requests + 0, 1, now)
    if wait > 0 then
      return {}, -16, wait
    end
  end
  if tokens ~= NONE and hold > tokens + 0 then -- however long one waits
    return {}, -17, 0
  elseif tokens ~= NONE then
    local n = #buckets
    buckets[n + 1], buckets[n + 2], wait =
      'mt', pour(redis.call('HGET', caller.key, 'mt'), tokens + 0, hold, now)
    if wait > 0 then
      return {}, -17, wait
    end
  end
  return buckets, 1, 0
end
