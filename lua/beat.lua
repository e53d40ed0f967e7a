-- A proxy tells that it lives, and hears how many do: a sorted set, process -> when it was last seen.
-- It is not part of any decision. One step, so that the set never stays without an end.
--
-- KEYS[1] the set. ARGV: now in microseconds, or 0 for the server's clock; the process; who was not seen for so
-- many ms is gone; the set itself goes after so many ms. Reply: processes that live.
local key = KEYS[1]
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local now_ms = math.floor(now / 1000)
redis.call('ZADD', key, string.format('%.0f', now_ms), ARGV[2])
redis.call('PEXPIRE', key, ARGV[4])
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now_ms - tonumber(ARGV[3])))
return redis.call('ZCARD', key)
