-- purpose: the prelude of scripts that read or change an account.
-- promise: an account is read once and written once a call.
-- PROVIDES: EIGHT, read_account(key), in_force(account, epoch), against_allowance(account),
--           roll(account, now, starts, ends), restate_allowance(account, tokens),
--           store(a, held, held_nano_gbp, open)
-- invariants: a field that is missing is 0; a period never goes back, and only one that is over
--             gives way to the next.
-- cost: for each account one HMGET and one HSET; one HGET while it is being hydrated, one HSET more
--       where the period before changes.

local EIGHT = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$'

-- The account with its numbers under their names; false when there is none.
local function read_account(key)
  local found = redis.call('HMGET', key, 'a', 'u')
  if not found[1] then
    return false
  end
  local epoch, rev, starts, ends, adjusted, packs, allowance, awaits = string.match(found[1], EIGHT)
  local settled, from_packs, nano_gbp, seq, warned, held, open, held_nano_gbp =
    string.match(found[2], EIGHT)
  local account = { -- sixteen fields: one more would double the table
    key = key, epoch = epoch + 0, rev = rev + 0, starts = starts + 0, ends = ends + 0,
    adjusted = adjusted + 0, packs = packs + 0, allowance = allowance + 0,
    settled = settled + 0, from_packs = from_packs + 0, nano_gbp = nano_gbp + 0, seq = seq + 0,
    warned = warned + 0, held = held + 0, open = open + 0, held_nano_gbp = held_nano_gbp + 0,
  }
  if awaits ~= '0' then
    account.hydrating = redis.call('HGET', key, 'y')
  end
  return account
end

-- True for an account of this epoch: older ones were made before the server lost data.
local function in_force(account, epoch)
  return account and account.epoch == epoch
end

-- What counts as used: packs paid their part, and negative adjustments add room.
local function against_allowance(account)
  return account.settled - account.from_packs + account.adjusted
end

-- Close the period of an account, if there is one, when it is over; the caller's borders hold
-- `now`. What is charged to it later finds its figures in `last`.
local function roll(account, now, starts, ends)
  if not account or now < account.ends then
    return
  end
  account.last = { starts = account.starts, used = against_allowance(account),
                   allowance = account.allowance }
  account.starts, account.ends = starts, ends
  account.settled, account.from_packs, account.adjusted = 0, 0, 0
  account.nano_gbp, account.warned, account.is_restated = 0, 0, true
end

-- Note the allowance that a call was granted under.
local function restate_allowance(account, tokens)
  if account.allowance ~= tokens then
    account.allowance, account.is_restated = tokens, true
  end
end

-- Write what this call has changed, and what open holds hold by now: absolute values, which cannot
-- fail. Most calls change only what is used.
local function store(a, held, held_nano_gbp, open)
  a.held, a.open, a.held_nano_gbp = a.held + held, a.open + open, a.held_nano_gbp + held_nano_gbp
  local use = string.format('%d %d %d %d %d %d %d %d', a.settled, a.from_packs, a.nano_gbp, a.seq,
                            a.warned, a.held, a.open, a.held_nano_gbp)
  if not a.is_restated then
    redis.call('HSET', a.key, 'u', use)
  else
    redis.call('HSET', a.key, 'u', use, 'a', string.format(
      '%d %d %d %d %d %d %d %d', a.epoch, a.rev, a.starts, a.ends, a.adjusted, a.packs,
      a.allowance, a.hydrating and 1 or 0))
  end
  if a.last then
    redis.call('HSET', a.key, 'l', string.format('%d %d %d', a.last.starts, a.last.used,
                                                 a.last.allowance))
  end
end
