#!lua flags=allow-oom
-- purpose: remove an account that nobody uses; hydration brings it back.
-- promise: an account in force with an open hold, and one of a period that is not over for as long
--          again as it lasted, stays.
-- prelude: values account
-- KEYS: 1 meta · 2 account · 3 packs
-- ARGV: 1 now ms (only where meta says clock = test), else ''
-- RETURNS: code. Codes: 1 removed · 0 stays · -1 meta missing
-- invariants: nothing is lost: the ledger has, or will have, every event of the account.
-- cost: TIME, 2 HMGET, 1 HGET in tests, 1 DEL. No loop.

local meta_key, account_key, packs_key = KEYS[1], KEYS[2], KEYS[3]
local epoch, now = read_meta(meta_key, ARGV[1])
if not now then
  return redis.error_reply('ERR forget: a clock of the caller is refused')
elseif epoch == 0 then
  return { -1 }
end
local account = read_account(account_key)
if not account or account.hydrating then
  return { 0 }
end
-- An account of an older epoch is not in force: its holds are orphans once it is hydrated.
local idle_from = account.ends + (account.ends - account.starts)
if (account.open > 0 and in_force(account, epoch)) or now < idle_from then
  return { 0 }
end
redis.call('DEL', account_key, packs_key)
return { 1 }
