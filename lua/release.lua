-- What happens to states after their decision: refunds, further charges, slots that are renewed or end.
--
-- KEYS: one per state. ARGV: now in microseconds (0: the server's clock), 1, then nine per state: letter,
-- when it was charged (microseconds), the amount (above 0 charges or renews, below 0 gives back or ends),
-- the six parameters of a decision. Reply: 1.

local function parsed(key, parse, ...)
  local state = { text = redis.call('GET', key), a = false, f = 0, u = 1, read = false }
  parse(state, ...)
  return state
end

local function settle_bucket(key, p, amount)
  local capacity, period, rate, tick = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3])
  local full = capacity * period
  local lowest = full + tonumber(ARGV[p + 5]) * period
  local text = redis.call('GET', key)
  local state, d, t = { a = false, f = 0, u = 1 }, 0, floor(now / tick)
  if text then
    parse_bucket(state, text)
    d = bucket_deficit(state, t, full, lowest, rate, tick)
  end
  local after = d + amount * period
  if after < 0 then after = 0 end
  if amount > 0 and after > lowest then after = math.max(lowest, d) end
  if after == d then return end
  if after == 0 then return redis.call('DEL', key) end
  set_bucket(state, t, after, rate, tick)
  write_bucket(key, state)
end

local function settle_fixed_window(key, p, amount, charged)
  local limit, width, from, to = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3])
  local next, state = tonumber(ARGV[p + 4]), parsed(key, parse_fixed_window, limit)
  if amount < 0 then
    if not state.start or state.start > charged then return end
    local left = state.count + amount
    if left <= 0 then return redis.call('DEL', key) end
    return redis.call('SET', key, string.format('%.0f:%.0f', state.start, left), 'KEEPTTL')
  end
  local s, e, count = read_fixed_window(state, width, from, to, next)
  local most = math.max(count, limit + tonumber(ARGV[p + 5]))
  write_fixed_window(key, { start = s, count = math.min(count + amount, most), stop = e })
end

local function settle_sliding_window(key, p, amount, charged)
  local limit, width, tick = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2])
  local state = parsed(key, parse_sliding_window, limit)
  state.width = width * tick
  local most = limit + tonumber(ARGV[p + 5])
  if amount < 0 then
    if not state.index then return end
    local age = state.index - floor(floor(charged / tick) / width)
    if age == 0 then
      state.current = math.max(state.current + amount, 0)
    elseif age == 1 then
      state.previous = math.max(state.previous + amount, 0)
    else
      return
    end
    return write_sliding_window(key, state)
  end
  local i, current, previous = read_sliding_window(state, most, width, tick)
  current = math.min(current + amount, math.max(current, most))
  write_sliding_window(key, { index = i, current = current, previous = previous, width = state.width })
end

local function settle_sliding_log(key, p, amount, charged)
  local width, state = tonumber(ARGV[p + 1]), {}
  if amount < 0 then
    redis.call('LREM', key, -amount, string.format('%.0f', charged))
    local newest = redis.call('LINDEX', key, -1)
    if newest then expire(key, (tonumber(newest) + width)) end
    return
  end
  load_sliding_log(key, state, width)
  local room = tonumber(ARGV[p]) + tonumber(ARGV[p + 5]) - (state.total - state.first)
  state.added = math.min(amount, math.max(room, 0))
  state.newest = state.newest and state.newest > now and state.newest or now
  if state.added > 0 or state.ahead then write_sliding_log(key, state, true) end
end

local function settle_in_flight(key, p, amount)
  local slot, stop = ARGV[p + 2], now + tonumber(ARGV[p + 1])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if amount < 0 then
    redis.call('ZREM', key, slot)
  else
    redis.call('ZADD', key, stop, slot)
  end
  local latest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
  if latest then expire(key, tonumber(latest)) end
end

local settle = {
  b = settle_bucket, q = settle_bucket, f = settle_fixed_window, s = settle_sliding_window,
  l = settle_sliding_log, c = settle_in_flight,
}
for i = 1, #KEYS do
  local p = i * 9 - 6 -- a penalty is never settled
  settle[ARGV[p]](KEYS[i], p + 3, tonumber(ARGV[p + 2]), tonumber(ARGV[p + 1]))
end
return 1
