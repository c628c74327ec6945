#!lua flags=allow-oom
-- purpose: replace, renew or remove what a call has put under its idempotency key.
-- promise: what another call has there stays; renewing never makes anew what is gone.
-- prelude: values amounts
-- KEYS: 1 what is remembered under the key
-- ARGV: 1 rid · 2 the call's mark, byte by byte as it was when the call began
--       3 what comes in its place; the mark again renews it, '' removes it
--       4 how long it lives, ms, 1 or more
-- RETURNS: code, rid. Codes: 1 done, or done before · 0 nothing to renew, or another call's
-- invariants: a key has the mark of one call or the answer of one; both are of one user.
-- cost: 1 GET, then 1 SET or 1 DEL. No loop.

local remembered_key = KEYS[1]
local rid, mark, instead = ARGV[1], ARGV[2], ARGV[3]
if rid == NONE or mark == NONE or not are_amounts(4, 4) or ARGV[4] + 0 == 0 then
  return redis.error_reply('ERR keep: an argument is missing or not a whole amount')
end

local found = redis.call('GET', remembered_key)
if found and found ~= mark and found ~= instead then
  return { 0, rid }
elseif not found and instead == mark then
  return { 0, rid }
end
if instead == NONE then
  redis.call('DEL', remembered_key)
else
  redis.call('SET', remembered_key, instead, 'PX', ARGV[4])
end
return { 1, rid }
