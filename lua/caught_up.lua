#!lua flags=allow-oom
-- purpose: note that one gateway has brought back what it knew, after a shard's epoch was raised.
-- promise: the quiet time ends when nobody is awaited any more; a gateway of another epoch, or one
--          that is not awaited, changes nothing.
-- KEYS: 1 meta
-- ARGV: 1 epoch · 2 id of the gateway
-- RETURNS: code. Codes: 1 noted · 0 not awaited
-- invariants: `w` names who is awaited; without it there is no quiet time.
-- cost: 1 HMGET, 1 HSET or 1 HDEL. Loops over gateways.

local meta_key, epoch, gateway = KEYS[1], ARGV[1], ARGV[2]
local found = redis.call('HMGET', meta_key, 'e', 'w')
if found[1] ~= epoch or not found[2] then
  return { 0 }
end
local awaited, is_awaited = {}, false
for id in string.gmatch(found[2], '%S+') do
  if id == gateway then
    is_awaited = true
  else
    awaited[#awaited + 1] = id
  end
end
if not is_awaited then
  return { 0 }
elseif #awaited == 0 then
  redis.call('HDEL', meta_key, 'u', 'w')
else
  redis.call('HSET', meta_key, 'w', table.concat(awaited, ' '))
end
return { 1 }
