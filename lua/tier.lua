-- purpose: the prelude of scripts that know the sums of a capped tier.
-- promise: a tier without a share in this shard has nothing to give, and counts all the same.
-- PROVIDES: read_tier(key, starts, epoch), runs(tier, starts, now),
--           store_tier(tier, settled, held)
-- invariants: after a grant settled + held <= the share, but for a shadow tier. What stands
--             there of another epoch counts for nothing: the first who counts in this one begins it
--             anew, with no share. `c`, `f`, and `r` with what it adds to `s`, are from elsewhere.
-- cost: one HMGET, one HSET; two where it begins anew.

-- The tier's sums in this shard; nil where the tier is not capped (no `starts`). Those of an older
-- period count for nothing. `free`: so much of the cap may be shared out anew within a second.
local function read_tier(key, starts, epoch)
  if starts == NONE then
    return nil
  end
  local found = redis.call('HMGET', key, 'e', 'p', 's', 'h', 'c', 'r', 'f')
  local kept, asked = (found[2] or 0) + 0, starts + 0
  if (found[1] or 0) + 0 ~= epoch then
    return { key = key, begins = epoch, period = asked, is_now = true, settled = 0, held = 0,
             share = 0, free = LARGE }
  end
  return { key = key, period = math.max(kept, asked), is_now = kept <= asked,
           settled = kept >= asked and (found[3] or 0) + 0 or 0, held = (found[4] or 0) + 0,
           share = (found[5] or 0) + 0, free = found[6] == '1' and (found[7] or 0) + 0 or LARGE }
end

-- Whether the tier, if it is one, was read for the period that runs. After the clock has gone back
-- the one that had begun goes on.
local function runs(tier, starts, now)
  return not tier or (starts + 0 <= now and (tier.is_now or tier.period > now))
end

-- Count changes of held tokens, and of those settled in the period that the tier was read for.
local function store_tier(tier, settled, held)
  if tier.begins then
    redis.call('HSET', tier.key, 'e', tier.begins, 'c', 0, 'r', 0)
  end
  redis.call('HSET', tier.key, 'p', tier.period, 'h', math.max(0, tier.held + held),
             's', tier.settled + (tier.is_now and settled or 0))
end
