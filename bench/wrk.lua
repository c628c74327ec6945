-- Sends prepared requests in turn and tells what came of them as one line of JSON.
-- Given: the file with the requests, each behind its length and a line end.

local prepared, at = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local bytes = file:read("*n")
  while bytes do
    file:read(1)
    prepared[#prepared + 1] = file:read(bytes)
    bytes = file:read("*n")
  end
  file:close()
end

function request()
  at = at % #prepared + 1
  return prepared[at]
end

function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "duration_us": %d, "refused": %d, "broken": %d, ',
    summary.requests, summary.duration, errors.status, broken))
  io.write(string.format(
    '"p50_us": %f, "p99_us": %f}\n', latency:percentile(50), latency:percentile(99)))
end
