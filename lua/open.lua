#!lua
-- purpose: open a shard on a server that does not know it: new, emptied, or fresh after a loss.
-- promise: a shard that is open stays as it is; a new one begins at an epoch the ledger granted,
--          with its outbox past everything the ledger has seen.
-- prelude: account
-- KEYS: 1 meta · 2 outbox
-- ARGV: 1 epoch · 2 number of shards · 3 schema version · 4 ledger's cursor (a stream id)
-- RETURNS: code, epoch in force, shards, schema. Codes: 1 opened · 0 was open
-- invariants: a stream id is never given out twice, so the drain's cursor stays true.
-- cost: 1 HMGET, and 1 EXISTS, 1 XINFO, 1 HSET, 1 XADD, 1 XDEL at most. No loop.

local meta_key, outbox_key = KEYS[1], KEYS[2]
local epoch, shards, schema, cursor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local natural, position = '^[1-9]%d*$', '^(%d+)%-(%d+)$'
if not (string.match(epoch, natural) and string.match(shards, natural)
        and string.match(schema, natural) and string.match(cursor, position)) then
  return redis.error_reply('ERR open: an argument is not of its kind')
end
local found = redis.call('HMGET', meta_key, 'e', 'n', 'v')
if found[1] then
  return { 0, tonumber(found[1]), tonumber(found[2]), tonumber(found[3]) }
end
local ms, seq = string.match(cursor, position)
local last_ms, last_seq = string.match(newest_id(outbox_key), position)
local ahead_ms, ahead_seq = ms - last_ms, seq - last_seq
-- An entry made and taken back leaves its id behind: the stream goes on from there.
if ahead_ms > 0 or (ahead_ms == 0 and ahead_seq > 0) then
  redis.call('XADD', outbox_key, cursor, 'skip', '1')
  redis.call('XDEL', outbox_key, cursor)
end
redis.call('HSET', meta_key, 'e', epoch, 'n', shards, 'v', schema)
return { 1, tonumber(epoch), tonumber(shards), tonumber(schema) }
