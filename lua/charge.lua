-- purpose: the prelude of scripts that charge: what was held or booked, who pays, what was crossed.
-- promise: nothing is written here; what is told can be written without failing.
-- PROVIDES: read_charge(text), read_counted(epoch, key, period, ends), read_ending(text),
--           last_period(account), pay(account, packs, period, change, since, split, of_hold),
--           count(account, period, tokens, from_packs, nano_gbp),
--           crossed(account, period, thresholds)
-- invariants: a charge is paid by the allowance of its period, then by packs, then by the allowance
--             again, which is overdrawn. What is taken back goes to the packs that paid it first.
-- cost: what it costs to read an account, and for another period than the running one one HGET.
--       Loops over packs and thresholds.

-- What an ending is told to charge: epoch of the hold, start of its period, tokens, nano-GBP,
-- grace, allowance, the period's end (false unless nothing was held); nil if told otherwise.
local function read_charge(text)
  local epoch, period, tokens, nano_gbp, grace_ms, allowance, ends =
    string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not ends then
    return nil
  end
  epoch, period, tokens, nano_gbp = epoch + 0, period + 0, tokens + 0, nano_gbp + 0
  grace_ms, allowance, ends = grace_ms + 0, allowance + 0, ends + 0
  if math.max(epoch, period, tokens, nano_gbp, grace_ms, allowance, ends) < LARGE then
    return epoch, period, tokens, nano_gbp, grace_ms, allowance, ends > 0 and ends
  end
end

-- The account if it is in force, and in the period that ends then, if one is told. One that is not
-- in force counts nothing: hydration will read the ledger.
local function read_counted(epoch, key, period, ends)
  local account = key and read_account(key)
  account = in_force(account, epoch) and account or nil
  roll(ends and account and not account.hydrating and account, period, period, ends)
  return account
end

-- What is kept under a rid: an open hold (h), an orphan (o), an expiry (x), a mark (v, d), or nil.
local function read_ending(text)
  local state = text and string.sub(text, 1, 1)
  if state == 'h' or state == 'o' then
    local hold, nano_gbp, period, since =
      string.match(text, '^%l %d+ (%d+) (%d+) (%d+) (%d+) ')
    return { state = state, is_open = true, hold = hold + 0, nano_gbp = nano_gbp + 0,
             period = period + 0, since = since + 0 }
  elseif state == 'x' then
    local tokens, nano_gbp, hold, since, split =
      string.match(text, '^x (%d+) (%d+) (%d+) (%d+) (%S+)$')
    return not tokens and { state = 'd' } -- in the form of an older release
      or { state = state, tokens = tokens + 0, nano_gbp = nano_gbp + 0, hold = hold + 0,
           since = since + 0, split = split }
  end
  return state and { state = state }
end

-- The figures of the period before: its start, what was used of its allowance, and that.
local function last_period(account)
  local starts, used, allowance =
    string.match(redis.call('HGET', account.key, 'l') or '0 0 0', '^(%d+) (-?%d+) (%d+)$')
  account.last = { starts = starts + 0, used = used + 0, allowance = allowance + 0 }
  return account.last
end

-- How much of a change packs pay, and the split of it. `split` is what they paid before,
-- `of_hold` the allowance of the hold: it stands for one under which nothing was granted here.
local function pay(account, packs, period, change, since, split, of_hold)
  if change < 0 then
    local given, back = give_back(packs, split, -change)
    return -given, back
  end
  if #packs == 0 then
    return 0, '-'
  end
  local used, granted = against_allowance(account), account.allowance
  if period ~= account.starts then
    local last = last_period(account)
    used, granted = last.used, last.allowance > 0 and last.allowance or of_hold
    if period ~= last.starts then -- longer ago than anything is remembered of
      return 0, '-'
    end
  end
  if used + change <= granted then
    return 0, '-'
  end
  return spend(packs, since, change - math.max(0, granted - used))
end

-- Count a change, if there is an account, in the period it belongs to; what is older is in the
-- ledger only.
local function count(account, period, tokens, from_packs, nano_gbp)
  if not account then
    return
  end
  if period == account.starts then
    account.settled = account.settled + tokens
    account.from_packs = account.from_packs + from_packs
    account.nano_gbp = account.nano_gbp + nano_gbp
    return
  end
  local last = account.last or last_period(account)
  if period == last.starts then
    last.used = last.used + tokens - from_packs
  end
end

-- The highest threshold that is reached now and was not before, or 0; the account remembers it. An
-- event of another period than the running one tells nothing of this.
local function crossed(account, period, thresholds)
  if period ~= account.starts then
    return 0
  end
  local reached, used = 0, against_allowance(account) * 100
  for percent in string.gmatch(thresholds, '%d+') do
    if used < percent * account.allowance then
      break
    end
    reached = percent + 0
  end
  local before = account.warned
  account.warned = account.allowance > 0 and reached or before
  return account.warned > before and reached or 0
end
