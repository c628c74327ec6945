-- purpose: the prelude of scripts that know limits: of a period, and of a minute.
-- promise: nothing is written; a bucket drains by the server's clock only.
-- PROVIDES: most_output(account, member, tier, packs_left, ask), pour(bucket, limit, units, now),
--           minute(key, requests, tokens, hold, now)
-- invariants: a bucket is "level at_ms": 60,000 a unit. It loses the limit each millisecond, and
--             takes nothing that would bring it over limit x 60,000: so in any t seconds at most
--             limit + limit x t / 60 units pass. A limit above 10^12 counts as that.
-- cost: one HGET a bucket.

-- The most output a choice that fits every limit of a period. Where not even the least fits: the
-- code of the limit instead; -11 when it will fit once open holds end.
local function most_output(account, member, tier, packs_left, ask)
  local prompt, each, output = ask.prompt, ask.choices, ask.wanted
  -- code, what is left, what open holds have of that, what a call takes of it without output, what
  -- one token of output of every choice takes: in tokens, or in nano-GBP
  local limits = { { -10, math.max(0, ask.limit - against_allowance(account)) + packs_left,
                     account.held, prompt, each } }
  if member and ask.member_limit ~= NONE then
    limits[2] = { -12, ask.member_limit - against_allowance(member), member.held, prompt, each }
  end
  if tier then
    limits[#limits + 1] = { -13, tier.share - tier.settled, tier.held, prompt, each }
  end
  if ask.budget ~= NONE then
    limits[#limits + 1] = { -14, ask.budget - account.nano_gbp, account.held_nano_gbp,
                            ask.prompt_cost, each * ask.output_cost }
  end
  for _, limit in ipairs(limits) do
    if limit[4] + ask.least * limit[5] > limit[2] then
      return limit[1]
    end
  end
  for _, limit in ipairs(limits) do
    local room = limit[2] - limit[3] - limit[4]
    if ask.least * limit[5] > room then
      return -11
    elseif output * limit[5] > room then
      output = math.floor(room / limit[5])
    end
  end
  return output
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

-- The caller's buckets with this call in them, as fields. Or no buckets, the code of the one that
-- it does not fit, and the wait until it does; 0 if it never does.
local function minute(key, requests, tokens, hold, now)
  local buckets, wait = {}, 0
  if requests ~= NONE then
    buckets[1], buckets[2], wait = 'mr', pour(redis.call('HGET', key, 'mr'), requests + 0, 1, now)
    if wait > 0 then
      return nil, -16, wait
    end
  end
  if tokens ~= NONE and hold > tokens + 0 then -- however long one waits
    return nil, -17, 0
  elseif tokens ~= NONE then
    local n = #buckets
    buckets[n + 1], buckets[n + 2], wait =
      'mt', pour(redis.call('HGET', key, 'mt'), tokens + 0, hold, now)
    if wait > 0 then
      return nil, -17, wait
    end
  end
  return buckets
end
