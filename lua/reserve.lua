#!lua
-- purpose: decide whether a call fits, and hold what it may cost.
-- promise: all limits are checked together and the hold is made in the same step, or nothing is;
--          the same rid asks once however often it is sent. A refusal is not stored.
-- prelude: account
-- KEYS: 1 meta · 2 account · 3 holds · 4 leases
-- ARGV: 1 rid · 2 lease member ("<account> <rid>") · 3 entitlement revision read by the caller
--       4 period start ms · 5 period end ms · 6 allowance, tokens · 7 prompt, tokens
--       8 output wanted a choice, tokens · 9 least output a choice, tokens · 10 choices
--       11 lease ms · 12 tail (JSON) · 13 now ms (only where meta says clock = test), else ''
-- RETURNS: code, rid, output granted a choice, hold, used, held, limit, packs, period start
--          (the hold's), period end, now, revision, epoch. Codes: 1 held · 2 held before
--          -1 meta missing · -2 account missing or being hydrated · -3 other revision
--          -4 caller's period is not now · -5 this rid has ended · -10 month used up
--          -11 fits once open holds end
-- invariants: settled + adjusted + held <= limit after a grant; held = sum of open holds; one lease
--             a hold. A further limit is one more check between "the month" and "the grant".
-- cost: TIME, 2 HMGET, 1 HGET, and for a grant 2 HSET, 1 ZADD. No loop.

local meta_key, account_key, holds_key, leases_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local rid, member, tail = ARGV[1], ARGV[2], ARGV[12]
local rev, period_starts, period_ends = amount(ARGV[3]), amount(ARGV[4]), amount(ARGV[5])
local limit, prompt, wanted = amount(ARGV[6]), amount(ARGV[7]), amount(ARGV[8])
local least, choices, lease_ms = amount(ARGV[9]), amount(ARGV[10]), amount(ARGV[11])
if not (rev and period_starts and period_ends and limit and prompt and wanted and least
        and choices and lease_ms) or choices < 1 or rid == NONE or least > wanted then
  return redis.error_reply('ERR reserve: an argument is not a whole amount')
end

local meta = redis.call('HMGET', meta_key, 'e', 'clock')
local now = server_ms(meta[2], ARGV[13])
if not now then
  return redis.error_reply('ERR reserve: a clock of the caller is refused')
end
local epoch = tonumber(meta[1] or '0')

local function answer(code, output, hold, account)
  local a = account or { settled = 0, adjusted = 0, held = 0, starts = 0, ends = 0, rev = 0 }
  return { code, rid, output, hold, used_tokens(a), a.held, limit, 0, a.starts, a.ends, now,
           a.rev, epoch }
end

if not meta[1] then
  return answer(-1, 0, 0)
end
local account = read_account(account_key)
if not in_force(account, epoch) or account.hydrating then
  return answer(-2, 0, 0)
end

local before = redis.call('HGET', holds_key, rid)
if before then
  local output, hold, period = string.match(before, '^h (%d+) (%d+) (%d+) ')
  if not output then
    return answer(-5, 0, 0, account)
  end
  account.starts = tonumber(period) -- a hold stays in the period it was made in
  return answer(2, tonumber(output), tonumber(hold), account)
end
if account.rev ~= rev then
  return answer(-3, 0, 0, account)
end
if not roll(account, now, period_starts, period_ends) then
  return answer(-4, 0, 0, account)
end

-- the month
local left = math.max(0, limit - used_tokens(account))
local room = left - account.held
if prompt + least * choices > left then
  return answer(-10, 0, 0, account)
end
if prompt + least * choices > room then
  return answer(-11, 0, 0, account)
end

-- the grant
local output = math.min(wanted, math.floor((room - prompt) / choices))
local hold = prompt + output * choices
account.held, account.open = account.held + hold, account.open + 1
redis.call('ZADD', leases_key, whole(now + lease_ms), member) -- first: only this may still fail
redis.call('HSET', holds_key, rid, table.concat(
  { 'h', whole(output), whole(hold), whole(account.starts), whole(now), '0', tail }, ' '))
local fields = { 'h', whole(account.held), 'n', whole(account.open), 'al', whole(limit) }
if account.rolled then
  for _, item in ipairs({ 'ps', account.starts, 'pe', account.ends, 's', 0, 'adj', 0, 'g', 0,
                          'lps', account.last_starts, 'ls', account.last_settled }) do
    fields[#fields + 1] = type(item) == 'number' and whole(item) or item
  end
end
redis.call('HSET', account_key, unpack(fields))
return answer(1, output, hold, account)
