-- The commonest call by itself: one enforced token bucket. Same answers and same writes as decide.lua
-- with token_bucket.lua, in half the time.
--
-- KEYS: the state. ARGV: now in microseconds (0: the server's clock; below 0: the caller's, see prelude.lua), cost, C, P, R, U.
-- Reply: granted, now_us, wait_us (0), retry_us, ok, remaining, retry_us, reset_us.

local floor = math.floor
local now, cost = tonumber(ARGV[1]), tonumber(ARGV[2])
local capacity, period, rate, tick = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local callers = now < 0
if callers then now = -now end

local t, full, d, reanchored = floor(now / tick), capacity * period, 0, false
local text = redis.pcall('GET', KEYS[1])
if text then
  local a, f, u = tonumber(text), 0, 1
  if not a then
    if type(text) == 'table' then -- an error: only a key of another type is ours to replace
      if not string.find(text.err, 'WRONGTYPE', 1, true) then return text end
    else
      a, f = string.match(text, '^(%d+):(%d+)$')
      if not a then a, f, u = string.match(text, '^(%d+):(%d+):(10*)$') end
      if a then a, f, u = tonumber(a), tonumber(f), tonumber(u or 1) end
    end
  end
  if not a or a % 1 ~= 0 then
    d, reanchored = full, true
  else
    local ahead
    if u == tick then
      ahead = a - t
      if f >= rate then f = rate - 1 end
    else -- written in other ticks: round towards emptier
      if f > 0 then a = a + 1 end
      a, f = a * u, 0
      ahead = a > now and -floor(-a / tick) - t or -1
    end
    if ahead >= 0 then
      if ahead > floor(1000000 / tick) - floor(-full / rate) then
        d, reanchored = full, true
      else
        d = ahead * rate + f
      end
    end
  end
end

local after, ok, retry = d, 1, 0
if cost > capacity then
  ok, retry = 0, -1
elseif cost > 0 then
  local most = full - cost * period
  if d > most then
    ok, retry = 0, -floor((most - d) / rate) * tick
  else
    after = d + cost * period
  end
end

local reset = -floor(-after / rate)
if cost > 0 and (ok == 1 or reanchored) then
  local a, f = t + floor(after / rate), after % rate
  if tick ~= 1 then
    a = string.format('%.0f:%.0f:%.0f', a, f, tick)
  elseif f > 0 then
    a = string.format('%.0f:%.0f', a, f)
  end
  if callers then
    redis.call('SET', KEYS[1], a, 'PX', 1001 - floor(-reset * tick / 1000))
  else
    redis.call('SET', KEYS[1], a, 'PXAT', 1 - floor(-(t + reset) * tick / 1000))
  end
end
return { ok, now, 0, retry, ok, after < full and floor((full - after) / period) or 0, retry, reset * tick }
