-- Portable Lua (5.1 and 5.4), sent as: this file, the algorithms a call needs, decide.lua (or release.lua).
--
-- KEYS: one per limit. ARGV of a decision: now in microseconds (0: the server's clock; below 0: the caller's,
-- see below), mode (0 look only,
-- 1 all or nothing, K grant up to K identical requests), then nine per limit: letter of the algorithm, shadow
-- (0 enforces, else the number of the shadow limit), cost, six parameters.
-- Reply, integers only: granted, now_us, wait_us, retry_us (-1 never), then four per limit:
-- ok, remaining, retry_us, reset_us.

local floor = math.floor
local algorithms = {}
local tolerance = 1000000 -- microseconds that a clock may step back before states are re-anchored
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- A caller's clock may be off by any amount, and keys expire by the server's: then they expire so long
-- after now by either clock, and a second later than their states say.
local callers = now < 0
if callers then now = -now end

-- How SET is told that a state lasts until this instant.
local function lasting(stop)
  if callers then return 'PX', math.max(1001 - floor((now - stop) / 1000), 1) end
  return 'PXAT', 1 - floor(-stop / 1000)
end

-- The same for a key that is there already.
local function expire(key, stop)
  if callers then return redis.call('PEXPIRE', key, math.max(1001 - floor((now - stop) / 1000), 1)) end
  redis.call('PEXPIREAT', key, 1 - floor(-stop / 1000))
end
