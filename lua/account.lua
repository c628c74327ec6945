-- purpose: the prelude of scripts that read or change an account.
-- promise: an account is read once and written once a call.
-- PROVIDES: read_account(key), in_force(account, epoch), roll(account, now, starts, ends),
--           against_allowance(account), last_period(account),
--           store(a, held, held_nano_gbp, open)
-- invariants: a field that is missing is 0; a period never goes back, and only one that is over
--             gives way to the next.
-- cost: for each account one HMGET of 16 fields and one HSET; the period before one HGET and one
--       more HSET.

-- The account with its numbers under their names; false when there is none.
local function read_account(key)
  local f = redis.call('HMGET', key, 'e', 'r', 'ps', 'pe', 's', 'f', 'adj', 'h', 'n', 'g', 'gh',
                       'q', 'al', 'k', 'w', 'y')
  return f[1] and {
    key = key, epoch = f[1] + 0, rev = (f[2] or 0) + 0, starts = f[3] + 0, ends = f[4] + 0,
    settled = (f[5] or 0) + 0, from_packs = (f[6] or 0) + 0, adjusted = (f[7] or 0) + 0,
    held = (f[8] or 0) + 0, open = (f[9] or 0) + 0, nano_gbp = (f[10] or 0) + 0,
    held_nano_gbp = (f[11] or 0) + 0, seq = (f[12] or 0) + 0, allowance = (f[13] or 0) + 0,
    packs = (f[14] or 0) + 0, warned = (f[15] or 0) + 0, hydrating = f[16],
  }
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
  account.nano_gbp, account.warned = 0, 0
end

-- The figures of the period before: its start, what was used of its allowance, and that.
local function last_period(account)
  local starts, used, allowance =
    string.match(redis.call('HGET', account.key, 'l') or '0 0 0', '^(%d+) (-?%d+) (%d+)$')
  account.last = { starts = starts + 0, used = used + 0, allowance = allowance + 0 }
  return account.last
end

-- Write what this call has changed, and what open holds hold by now: absolute values, which cannot
-- fail. Most calls change neither the period nor the one before.
local function store(a, held, held_nano_gbp, open)
  a.held, a.open, a.held_nano_gbp = a.held + held, a.open + open, a.held_nano_gbp + held_nano_gbp
  if not (a.is_charged or a.last) then
    redis.call('HSET', a.key, 'h', a.held, 'n', a.open, 'gh', a.held_nano_gbp, 'al', a.allowance)
    return
  end
  redis.call('HSET', a.key, 'h', a.held, 'n', a.open, 'gh', a.held_nano_gbp, 'al', a.allowance,
             's', a.settled, 'f', a.from_packs, 'g', a.nano_gbp, 'q', a.seq, 'w', a.warned)
  if a.last then
    redis.call('HSET', a.key, 'ps', a.starts, 'pe', a.ends, 'adj', a.adjusted, 'l',
               string.format('%d %d %d', a.last.starts, a.last.used, a.last.allowance))
  end
end
