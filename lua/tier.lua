-- purpose: the prelude of scripts that count a call: the tier's sums, and all who count, at once.
-- promise: a tier without a share in this shard has nothing to give.
-- PROVIDES: read_tier(key, starts, epoch), store_tier(tier, settled, held),
--           store_all(account, member, tier, held, held_nano_gbp, open, settled)
-- invariants: a tier's settled + held <= its share after a grant; shares of all shards together are
--             at most the tier's cap. Only its `c`, `e`, and its first `p` come from elsewhere.
-- cost: one HMGET, one HSET a tier; one or two HSET an account.

-- The tier's sums in this shard; nil where the tier is not capped (no `starts`). Those of an older
-- period count for nothing, and a tier of another epoch has nothing to give.
local function read_tier(key, starts, epoch)
  if starts == NONE then
    return nil
  end
  local found = redis.call('HMGET', key, 'e', 'p', 's', 'h', 'c')
  if (found[1] or 0) + 0 ~= epoch then
    return { settled = 0, held = 0, share = 0 }
  end
  local kept, asked = (found[2] or 0) + 0, starts + 0
  return { key = key, period = math.max(kept, asked), is_now = kept <= asked,
           settled = kept >= asked and (found[3] or 0) + 0 or 0, held = (found[4] or 0) + 0,
           share = (found[5] or 0) + 0 }
end

-- Count changes of held tokens, and of those settled in the period that the tier was read for.
local function store_tier(tier, settled, held)
  if tier.key then
    redis.call('HSET', tier.key, 'p', tier.period, 'h', tier.held + held,
               's', tier.settled + (tier.is_now and settled or 0))
  end
end

-- Write all who count this call: payer, member and tier, those of them that are there.
local function store_all(account, member, tier, held, held_nano_gbp, open, settled)
  if account then
    store(account, held, held_nano_gbp, open)
  end
  if member then
    store(member, held, held_nano_gbp, open)
  end
  if tier then
    store_tier(tier, settled, held)
  end
end
