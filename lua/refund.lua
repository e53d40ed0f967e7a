-- Gives back what buckets were charged: each becomes full by cost * P / R sooner, but never more than full.
-- A state that is gone, is not ours, or counts in other ticks (its limit was changed) stays as it is.
-- Portable Lua (5.1 and 5.4).
--
-- KEYS: the states. ARGV: now in microseconds (0: the server's clock), then four per state: cost, P, R, U.
-- Reply: how many states were changed.

local floor = math.floor
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local changed = 0
for i = 1, #KEYS do
  local key, p = KEYS[i], i * 4 - 2
  local cost, period = tonumber(ARGV[p]), tonumber(ARGV[p + 1])
  local rate, tick = tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3])
  local text = redis.pcall('GET', key)
  local a, f, u
  if type(text) == 'table' then -- an error: a key of another type is nothing of ours
    if not string.find(text.err, 'WRONGTYPE', 1, true) then return text end
  elseif text then
    a, f, u = string.match(text, '^(%d+)$'), 0, 1
    if not a then
      a, f = string.match(text, '^(%d+):(%d+)$')
      if not a then a, f, u = string.match(text, '^(%d+):(%d+):(10*)$') end
    end
    a, f, u = tonumber(a), tonumber(f), tonumber(u)
  end
  if a and u == tick then
    local charge = cost * period
    a, f = a - floor(charge / rate), f - charge % rate
    if f < 0 then a, f = a - 1, f + rate end
    local t = floor(now / tick)
    if a < t or (a == t and f == 0) then
      redis.call('DEL', key)
    else
      local value = a
      if tick ~= 1 then
        value = string.format('%.0f:%.0f:%.0f', a, f, tick)
      elseif f > 0 then
        value = string.format('%.0f:%.0f', a, f)
      end
      local full = f > 0 and a + 1 or a
      redis.call('SET', key, value, 'PXAT', 1 - floor(-full * tick / 1000))
    end
    changed = changed + 1
  end
end
return changed
