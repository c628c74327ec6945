-- purpose: the prelude of scripts that read or change an account.
-- promise: an account is read once and written once a call.
-- PROVIDES: FIGURES, read_account(key), new_account(key, epoch, starts, ends, token),
--           in_force(account, epoch), roll(account, now, starts, ends),
--           against_allowance(account), last_period(account),
--           store(a, held, held_nano_gbp, open)
-- invariants: a field that is missing is 0; a period never goes back, and only one that is over
--             gives way to the next.
-- cost: for each account one HGET and one HSET; the period before one HGET more.

-- All figures are one text: to read and write one field takes a third of the time of sixteen. The
-- order is that of lua/README.md, the last is the token, or '-'.
local FIGURES =
  '(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)'

-- The account with its numbers under their names; false when there is none.
local function read_account(key)
  local text = redis.call('HGET', key, 'a')
  if not text then
    return false
  end
  local epoch, rev, starts, ends, settled, from_packs, adjusted, held, open, held_nano_gbp,
    nano_gbp, seq, allowance, packs, warned, token = string.match(text, FIGURES)
  return {
    key = key, epoch = epoch + 0, rev = rev + 0, starts = starts + 0, ends = ends + 0,
    settled = settled + 0, from_packs = from_packs + 0, adjusted = adjusted + 0, held = held + 0,
    open = open + 0, held_nano_gbp = held_nano_gbp + 0, nano_gbp = nano_gbp + 0, seq = seq + 0,
    allowance = allowance + 0, packs = packs + 0, warned = warned + 0,
    hydrating = token ~= '-' and token,
  }
end

-- An account in which nothing is counted yet; it waits for the ledger's sums.
local function new_account(key, epoch, starts, ends, token)
  return { key = key, epoch = epoch, rev = 0, starts = starts, ends = ends, settled = 0,
           from_packs = 0, adjusted = 0, held = 0, open = 0, held_nano_gbp = 0, nano_gbp = 0,
           seq = 0, allowance = 0, packs = 0, warned = 0, hydrating = token }
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

-- Write the account, with what open holds hold by now: absolute values, which cannot fail. Most
-- calls do not change the period before.
local function store(a, held, held_nano_gbp, open)
  a.held, a.open, a.held_nano_gbp = a.held + held, a.open + open, a.held_nano_gbp + held_nano_gbp
  local figures = string.format(
    '%d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %s', a.epoch, a.rev, a.starts, a.ends, a.settled,
    a.from_packs, a.adjusted, a.held, a.open, a.held_nano_gbp, a.nano_gbp, a.seq, a.allowance,
    a.packs, a.warned, a.hydrating or '-')
  if a.last then
    redis.call('HSET', a.key, 'a', figures, 'l',
               string.format('%d %d %d', a.last.starts, a.last.used, a.last.allowance))
  else
    redis.call('HSET', a.key, 'a', figures)
  end
end
