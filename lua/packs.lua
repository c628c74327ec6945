-- purpose: the prelude of scripts that look at packs.
-- promise: nothing is written; packs come in the order in which they are spent, earliest end first.
-- PROVIDES: NO_PACKS, read_packs(key, account), left_in(packs, since)
-- invariants: a pack is "left ends_ms" under its id (no space, comma or colon in it). At most 32
--             packs an account.
-- cost: one HGETALL where the account has packs. Loops over packs.

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
