-- purpose: the prelude of every script: what an amount is, the shard's meta, and the time.
-- promise: nothing is read but meta and the clock, each once; nothing is written.
-- PROVIDES: NONE, LARGE, amount(text), server_ms(clock, test_now),
--           read_epoch(key, test_now), read_meta(key, test_now)
-- invariants: amounts are whole, from 0 to below 10^15; sums of them stay below 2^53, where Lua's
--             numbers are exact. `..` would print them with an exponent: write them with %d.
-- cost: one TIME; meta one HGET or HMGET, and one HGET where the caller tells a time (tests).

local NONE = ''

local LARGE = 1e15 -- above every amount

local function amount(text)
  return #text < 16 and string.find(text, '^%d+$') and text + 0
end

-- Milliseconds by the server. Another clock is accepted only where meta says so (tests).
local function server_ms(clock, test_now)
  if test_now ~= NONE then
    return clock == 'test' and amount(test_now)
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The epoch (0: meta is missing), and what meta says of the clock; that is asked only where the
-- caller tells a time.
local function read_epoch(key, test_now)
  return (redis.call('HGET', key, 'e') or 0) + 0,
         test_now ~= NONE and redis.call('HGET', key, 'clock')
end

-- The epoch (0: meta is missing), the time (false: it is not the caller's to say), and until when
-- nothing is reserved.
local function read_meta(key, test_now)
  local meta = redis.call('HMGET', key, 'e', 'u')
  local clock = test_now ~= NONE and redis.call('HGET', key, 'clock')
  return (meta[1] or 0) + 0, server_ms(clock, test_now), (meta[2] or 0) + 0
end
