#!lua flags=allow-oom
-- purpose: project what the ledger says of a payer (its adjustments) at a revision.
-- promise: revisions only rise: an older projection that comes late is ignored.
-- prelude: account
-- KEYS: 1 meta · 2 account
-- ARGV: 1 revision · 2 period start ms · 3 period end ms · 4 adjusted tokens of that period, signed
-- RETURNS: code, revision now. Codes: 1 projected · 0 older than what is there
--          -1 meta missing · -2 no account, or none of this period yet (hydration will read the
--          ledger) · -4 the period has not begun by the server's time: ask again then
-- invariants: adjustments are absolute and belong to one period; a period never goes back.
-- cost: TIME, 1 HGET, 1 HMGET, 1 HSET. No loop.

local meta_key, account_key = KEYS[1], KEYS[2]
local rev, starts, ends = amount(ARGV[1]), amount(ARGV[2]), amount(ARGV[3])
local adjusted = signed(ARGV[4])
if not (rev and starts and ends and adjusted) then
  return redis.error_reply('ERR entitle: an argument is not a whole amount')
end

local epoch = redis.call('HGET', meta_key, 'e')
if not epoch then
  return { -1, 0 }
end
local account = read_account(account_key)
if not in_force(account, tonumber(epoch))
   or (account.hydrating and account.starts ~= starts) then
  return { -2, 0 }
end
if rev <= account.rev then
  return { 0, account.rev }
end
local now = server_ms(false, NONE)
if starts > now then -- the revision may not rise past adjustments that cannot be taken yet
  return { -4, account.rev }
end
-- The adjustments of a period that this account has left are not its own.
local fields = { 'r', whole(rev) }
roll(account, now, starts, ends)
if account.starts == starts then
  fields[3], fields[4] = 'adj', whole(adjusted)
  if account.rolled then
    for _, item in ipairs({ 'ps', whole(starts), 'pe', whole(ends), 's', '0', 'g', '0', 'lps',
                            whole(account.last_starts), 'ls', whole(account.last_settled) }) do
      fields[#fields + 1] = item
    end
  end
end
redis.call('HSET', account_key, unpack(fields))
return { 1, rev }
