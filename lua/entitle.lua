#!lua flags=allow-oom
-- purpose: project what the ledger says of an account (adjustments, packs) at a revision.
-- promise: revisions only rise: an older projection that comes late is ignored. A pack never
--          rises: one that is known keeps what is left of it, or loses it (a refund).
-- prelude: values amounts account packs told
-- KEYS: 1 meta · 2 account · 3 packs
-- ARGV: 1 revision · 2 period start ms · 3 period end ms
--       4 adjusted tokens of that period, signed · 5 packs ("id tokens ends_ms,…", or '')
--       6 now ms (only where meta says clock = test), else ''
-- RETURNS: code, revision now, now. Codes: 1 projected · 0 older than what is there
--          -1 meta missing · -2 no account (hydration will read the ledger)
--          -4 the period has not begun by the server's time: ask again then
-- invariants: adjustments are absolute and belong to one period; a period never goes back. Of an
--             account that is being hydrated only the revision rises: what is read from the ledger
--             must not be older.
-- cost: TIME, 2 HMGET, 1 HGET in tests, 1 HGETALL where there are packs, 1 or 2 HSET, and an HSET
--       or HDEL a pack. Loops over packs.

local meta_key, account_key, packs_key = KEYS[1], KEYS[2], KEYS[3]
local adjusted, told = signed(ARGV[4]), read_told(ARGV[5])
if not are_amounts(1, 3) or not adjusted or not told then
  return redis.error_reply('ERR entitle: an argument is not of its kind')
end
local rev, starts, ends = ARGV[1] + 0, ARGV[2] + 0, ARGV[3] + 0

local epoch, now = read_meta(meta_key, ARGV[6])
if not now then
  return redis.error_reply('ERR entitle: a clock of the caller is refused')
elseif epoch == 0 then
  return { -1, 0, now }
end
local account = read_account(account_key)
if not in_force(account, epoch) then
  return { -2, 0, now }
end
if rev <= account.rev then
  return { 0, account.rev, now }
end
if account.hydrating then
  account.rev, account.is_restated = rev, true
  store(account, 0, 0, 0)
  return { 1, rev, now }
end
if starts > now then -- the revision may not rise past adjustments that cannot be taken yet
  return { -4, account.rev, now }
end
if now < ends then
  roll(account, now, starts, ends)
end
if account.starts == starts then -- else they belong to a period that the account has left
  account.adjusted = adjusted
end
local left = {}
for _, pack in ipairs(read_packs(packs_key, account)) do
  left[pack.id] = pack.left
end
merge_packs(packs_key, account, told, left)
account.rev, account.is_restated = rev, true
store(account, 0, 0, 0)
return { 1, rev, now }
