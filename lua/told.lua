-- purpose: the prelude of scripts that are told of packs by the ledger.
-- promise: what is told is read whole before any of it is written; a pack that is known never
--          rises.
-- PROVIDES: read_told(text), merge_packs(key, account, told, left)
-- invariants: an id has no space, comma or colon in it; tokens and ends are amounts.
-- cost: one HSET a pack, one HDEL a pack that is forgotten. Loops over packs.

-- The packs that the ledger tells of, "id tokens ends_ms,…"; nil when it is told otherwise.
local function read_told(text)
  local told, length = {}, 0
  for id, tokens, ends in string.gmatch(text .. ',', '([^ ,:]+) (%d+) (%d+),') do
    if #tokens > 15 or #ends > 15 then
      return nil
    end
    told[#told + 1] = { id = id, tokens = tokens + 0, ends = ends }
    length = length + #id + #tokens + #ends + 3
  end
  return (text == NONE or length == #text + 1) and told or nil
end

-- Write the packs that are told of: one that has `left` here keeps it, for what was given back may
-- not be in the ledger yet; one of which nothing is left there (a refund) loses it; one that is not
-- told of any more is forgotten.
local function merge_packs(key, account, told, left)
  for _, pack in ipairs(told) do
    local keeps = pack.tokens > 0 and left[pack.id] or pack.tokens
    redis.call('HSET', key, pack.id, string.format('%d %s', keeps, pack.ends))
    left[pack.id] = nil
  end
  for id in pairs(left) do
    redis.call('HDEL', key, id)
  end
  account.packs = #told
end
