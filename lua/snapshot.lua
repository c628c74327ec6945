#!lua flags=no-writes,allow-oom
-- purpose: read one account and its shard's newest event in one step.
-- promise: nothing is written; the figures belong to one moment.
-- prelude: account packs outbox
-- KEYS: 1 meta · 2 account · 3 packs · 4 outbox
-- ARGV: none
-- RETURNS: code, settled, of that from packs, adjusted, held, open holds, cost nano-GBP, period
--          start, period end, revision, epoch, stream id, packs ("id left ends_ms,…").
--          Codes: 1 read · 0 no account in force · -1 meta missing
-- invariants: none of its own.
-- cost: 1 or 2 HGET, 1 HMGET, 1 HGETALL where there are packs, 1 EXISTS, 1 XINFO. Loops over packs.

local meta_key, account_key, packs_key, outbox_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch = redis.call('HGET', meta_key, 'e')
if not epoch then
  return { -1 }
end
local account = read_account(account_key)
if not in_force(account, epoch + 0) or account.hydrating then
  return { 0 }
end
local packs = {}
for place, pack in ipairs(read_packs(packs_key, account)) do
  packs[place] = string.format('%s %d %d', pack.id, pack.left, pack.ends)
end
return { 1, account.settled, account.from_packs, account.adjusted, account.held, account.open,
         account.nano_gbp, account.starts, account.ends, account.rev, account.epoch,
         newest_id(outbox_key), table.concat(packs, ',') }
