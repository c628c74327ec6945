#!lua flags=no-writes,allow-oom
-- purpose: read one account and its shard's newest event in one step.
-- promise: nothing is written; the figures belong to one moment.
-- prelude: account
-- KEYS: 1 meta · 2 account · 3 outbox
-- ARGV: none
-- RETURNS: code, settled, adjusted, held, open holds, cost nano-GBP (text), period start, period
--          end, revision, epoch, stream id. Codes: 1 read · 0 no account in force · -1 meta missing
-- invariants: none of its own.
-- cost: 1 HGET, 1 HMGET, 1 EXISTS, 1 XINFO. No loop.

local meta_key, account_key, outbox_key = KEYS[1], KEYS[2], KEYS[3]
local epoch = redis.call('HGET', meta_key, 'e')
if not epoch then
  return { -1 }
end
local account = read_account(account_key)
if not in_force(account, tonumber(epoch)) or account.hydrating then
  return { 0 }
end
return { 1, account.settled, account.adjusted, account.held, account.open,
         whole(account.nano_gbp), account.starts, account.ends,
         account.rev, account.epoch,
         newest_id(outbox_key) }
