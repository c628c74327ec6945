-- purpose: the prelude of every script: numbers as arguments, the shard's meta, and the time.
-- promise: nothing is read but meta and the clock, each once; nothing is written.
-- PROVIDES: NONE, are_amounts(first, last), are_given(first, last), amount(text), signed(text),
--           server_ms(clock, test_now), read_meta(key, test_now)
-- invariants: amounts are whole, from 0 to below 10^15; sums of them stay below 2^53, where Lua's
--             numbers are exact. `..` would print them with an exponent: write them with %d.
-- cost: one TIME; meta one HMGET.

local NONE = ''

-- True when these arguments are amounts, or some of them ''. One pattern for all: to convert and
-- check each costs more than everything else that a script does.
local function are_given(first, last)
  for place = first, last do
    if #ARGV[place] > 15 then
      return false
    end
  end
  return not string.find(table.concat(ARGV, NONE, first, last), '%D')
end

-- True when these arguments are amounts, every one of them.
local function are_amounts(first, last)
  for place = first, last do
    if ARGV[place] == NONE then
      return false
    end
  end
  return are_given(first, last)
end

local function amount(text)
  return #text < 16 and string.find(text, '^%d+$') and text + 0
end

local function signed(text)
  return #text < 17 and string.find(text, '^-?%d+$') and text + 0
end

-- Milliseconds by the server. Another clock is accepted only where meta says so (tests).
local function server_ms(clock, test_now)
  if test_now ~= NONE then
    return clock == 'test' and amount(test_now)
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The epoch (0: meta is missing), the time (false: it is not the caller's to say), and until when
-- nothing is reserved.
local function read_meta(key, test_now)
  local meta = redis.call('HMGET', key, 'e', 'clock', 'u')
  return (meta[1] or 0) + 0, server_ms(meta[2], test_now), (meta[3] or 0) + 0
end
