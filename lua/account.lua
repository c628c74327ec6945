-- purpose: the account prelude; the loader puts it in front of each script that names it.
-- promise: one reading of the clock and of the account a call; nothing is written here.
-- PROVIDES: NONE, whole(number), amount(text), signed(text), server_ms(clock, test_now),
--           read_account(key), in_force(account, epoch), roll(account, now, starts, ends),
--           used_tokens(account), newest_id(outbox_key)
-- invariants: amounts are integers below 2^53, kept as text without exponent; a period never goes
--             back; only a period that is over gives way to the next one.
-- cost: one TIME, one HMGET of 14 fields; the newest id one EXISTS, one XINFO.

local NONE = ''

local function whole(number)
  return string.format('%.0f', number)
end

-- An integer from an argument, or nil: callers refuse before they write anything.
local function signed(text)
  local number = tonumber(text)
  if number and math.abs(number) < 9007199254740992 and number % 1 == 0 then
    return number
  end
  return nil
end

local function amount(text)
  local number = signed(text)
  return number and number >= 0 and number or nil
end

-- Milliseconds by the server. Another clock is accepted only where meta says so (tests).
local function server_ms(clock, test_now)
  if test_now ~= NONE then
    if clock ~= 'test' then
      return nil
    end
    return amount(test_now)
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The account as numbers; nil when there is none.
local function read_account(key)
  local field = redis.call('HMGET', key, 'e', 'r', 'ps', 'pe', 's', 'adj', 'h', 'n', 'g', 'q',
                           'al', 'lps', 'ls', 'y')
  if not field[1] then
    return nil
  end
  return {
    epoch = tonumber(field[1]), rev = tonumber(field[2]),
    starts = tonumber(field[3]), ends = tonumber(field[4]),
    settled = tonumber(field[5]), adjusted = tonumber(field[6]),
    held = tonumber(field[7]), open = tonumber(field[8]),
    nano_gbp = tonumber(field[9]), seq = tonumber(field[10]), allowance = tonumber(field[11]),
    last_starts = tonumber(field[12]), last_settled = tonumber(field[13]), hydrating = field[14],
  }
end

-- True for an account of this epoch: older ones were made before the server lost data.
local function in_force(account, epoch)
  return account and account.epoch == epoch
end

-- Close the account's period when it is over. False when the caller's borders do not hold `now`.
local function roll(account, now, starts, ends)
  if now < account.ends then
    return true
  end
  if now < starts or now >= ends then
    return false
  end
  account.last_starts, account.last_settled = account.starts, account.settled
  account.starts, account.ends = starts, ends
  account.settled, account.adjusted, account.nano_gbp = 0, 0, 0
  account.rolled = true
  return true
end

local function used_tokens(account)
  return math.max(0, account.settled + account.adjusted)
end

-- The id of a stream's newest event, deleted ones included; '0-0' when there never was one.
local function newest_id(outbox_key)
  if redis.call('EXISTS', outbox_key) == 0 then
    return '0-0'
  end
  local info = redis.call('XINFO', 'STREAM', outbox_key)
  for place = 1, #info, 2 do
    if info[place] == 'last-generated-id' then
      return info[place + 1]
    end
  end
end
