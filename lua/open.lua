#!lua
-- purpose: open a shard on a server that does not know it (new, or emptied), or raise its epoch
--          after the server went back in time.
-- promise: an epoch that is reached stays; a new one begins with the outbox past everything the
--          ledger has seen, and with a quiet time, in which nothing is reserved until those who are
--          awaited have brought back what they know.
-- prelude: values amounts outbox
-- KEYS: 1 meta · 2 outbox
-- ARGV: 1 epoch · 2 number of shards · 3 schema version · 4 ledger's cursor (a stream id)
--       5 quiet ms at most · 6 ids of the gateways awaited, with spaces between them
--       7 now ms (only where meta says clock = test), else ''
-- RETURNS: code, epoch in force, shards, schema. Codes: 1 opened, or raised · 0 was there
-- invariants: an epoch never falls; within one a stream id is never given out twice, so the drain's
--             cursor stays true. Accounts of an older epoch are not in force.
-- cost: TIME, 1 HMGET, and 1 EXISTS, 1 XINFO, 2 HSET, 1 HDEL, 1 XADD, 1 XDEL at most. No loop.

local meta_key, outbox_key = KEYS[1], KEYS[2]
local epoch, shards, schema, cursor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not are_amounts(1, 3) or not are_amounts(5, 5) or not string.find(cursor, '^%d+%-%d+$')
   or epoch + 0 < 1 or shards + 0 < 1 or schema + 0 < 1 then
  return redis.error_reply('ERR open: an argument is not of its kind')
end
local found = redis.call('HMGET', meta_key, 'e', 'n', 'v', 'clock')
local now = server_ms(found[4], ARGV[7])
if not now then
  return redis.error_reply('ERR open: a clock of the caller is refused')
end
if found[1] and found[1] + 0 >= epoch + 0 then
  return { 0, found[1] + 0, found[2] + 0, found[3] + 0 }
end
-- An entry made and taken back leaves its id behind: the stream goes on from there.
if is_past(cursor, newest_id(outbox_key)) then
  redis.call('XADD', outbox_key, cursor, 'skip', '1')
  redis.call('XDEL', outbox_key, cursor)
end
redis.call('HSET', meta_key, 'e', epoch, 'n', found[2] or shards, 'v', schema)
redis.call('HDEL', meta_key, 'u', 'w')
if ARGV[6] ~= NONE and ARGV[5] + 0 > 0 then
  redis.call('HSET', meta_key, 'u', now + ARGV[5], 'w', ARGV[6])
end
return { 1, epoch + 0, (found[2] or shards) + 0, schema + 0 }
