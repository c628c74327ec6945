-- purpose: the prelude of scripts that ask how far a stream has come.
-- promise: nothing is written.
-- PROVIDES: newest_id(outbox_key), is_past(id, other)
-- invariants: ids are "ms-seq" in the order in which the server gave them out.
-- cost: the newest id one EXISTS, one XINFO.

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

local function is_past(id, other)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)%-(%d+)$')
  local ahead = ms - other_ms
  return ahead > 0 or (ahead == 0 and seq - other_seq > 0)
end
