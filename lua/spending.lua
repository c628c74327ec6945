-- purpose: the prelude of scripts that spend packs.
-- promise: packs are spent in the order they are read; one that is empty stays known until the
--          ledger does not tell of it any more.
-- PROVIDES: spend(packs, since, tokens), give_back(packs, split, tokens), store_packs(key, packs)
-- invariants: what was paid is written "id:tokens,id:tokens", or "-".
-- cost: one HSET a pack that changed. Loops over packs.

-- Take up to `tokens`: what was taken, and from which pack how much.
local function spend(packs, since, tokens)
  local taken, split = 0, {}
  for _, pack in ipairs(packs) do
    local part = pack.ends > since and math.min(pack.left, tokens - taken) or 0
    if part > 0 then
      pack.left, pack.changed, taken = pack.left - part, true, taken + part
      split[#split + 1] = string.format('%s:%d', pack.id, part)
    end
  end
  return taken, taken > 0 and table.concat(split, ',') or '-'
end

-- Undo up to `tokens` of a split, the latest part first; the split of it is negative.
local function give_back(packs, split, tokens)
  local parts, given, back = {}, 0, {}
  for id, part in string.gmatch(split, '([^:,]+):(%d+)') do
    table.insert(parts, 1, { id = id, tokens = part + 0 })
  end
  for _, part in ipairs(parts) do
    local some = math.min(part.tokens, tokens - given)
    for _, pack in ipairs(packs) do
      if pack.id == part.id and some > 0 then
        pack.left, pack.changed, given = pack.left + some, true, given + some
        back[#back + 1] = string.format('%s:%d', pack.id, -some)
      end
    end
  end
  return given, given > 0 and table.concat(back, ',') or '-'
end

local function store_packs(key, packs)
  for _, pack in ipairs(packs) do
    if pack.changed then
      redis.call('HSET', key, pack.id, string.format('%d %d', pack.left, pack.ends))
    end
  end
end
