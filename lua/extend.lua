#!lua flags=allow-oom
-- purpose: lengthen the lease of an open hold and note how far its answer has come.
-- promise: an ended hold stays ended; progress never falls; repeating only renews the lease.
-- prelude: values amounts
-- KEYS: 1 holds · 2 leases
-- ARGV: 1 rid · 2 member ("<account> <rid>") · 3 progress, tokens · 4 lease ms
-- RETURNS: code, rid. Codes: 1 extended · 0 no open hold of this rid
-- invariants: one lease an open hold; no lease for any other.
-- cost: TIME, 1 HGET, 1 HSET, 1 ZADD. No loop.

local holds_key, leases_key = KEYS[1], KEYS[2]
local rid, member = ARGV[1], ARGV[2]
if not are_amounts(3, 4) or rid == NONE then
  return redis.error_reply('ERR extend: an argument is not a whole amount')
end

local found = redis.call('HGET', holds_key, rid)
local head, reached, tail = string.match(found or NONE, '^([ho] %d+ %d+ %d+ %d+ %d+) (%d+) (.*)$')
if not head then
  return { 0, rid }
end
local now = server_ms(false, NONE)
redis.call('ZADD', leases_key, now + ARGV[4], member) -- first: only this may still fail
redis.call('HSET', holds_key, rid,
           string.format('%s %d %s', head, math.max(ARGV[3] + 0, reached + 0), tail))
return { 1, rid }
