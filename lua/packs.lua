-- purpose: the prelude of scripts that spend packs.
-- promise: packs are spent by earliest end; one that is empty stays known until the ledger does not
--          tell of it any more.
-- PROVIDES: read_packs(key, account), left_in(packs, since), spend(packs, since, tokens),
--           give_back(packs, split, tokens), store_packs(key, packs)
-- invariants: a pack is "left ends_ms" under its id (no space, comma or colon in it); what was paid
--             is written "id:tokens,id:tokens", or "-". At most 32 packs an account.
-- cost: one HGETALL where the account has packs, one HSET a pack that changed. Loops over packs.

local NO_PACKS = {}

-- All packs of an account, earliest end first, ended ones included.
local function read_packs(key, account)
  if account.packs == 0 then
    return NO_PACKS
  end
  local packs, found = {}, redis.call('HGETALL', key)
  for place = 1, #found, 2 do
    local left, ends = string.match(found[place + 1], '^(%d+) (%d+)$')
    packs[#packs + 1] = { id = found[place], left = left + 0, ends = ends + 0 }
  end
  table.sort(packs, function(one, other)
    return one.ends < other.ends or (one.ends == other.ends and one.id < other.id)
  end)
  return packs
end

-- What may be spent by a call that began at `since`.
local function left_in(packs, since)
  local total = 0
  for _, pack in ipairs(packs) do
    if pack.ends > since then
      total = total + pack.left
    end
  end
  return total
end

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
