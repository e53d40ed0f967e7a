-- Token buckets. A state is the instant at which the bucket is full again: TAT = a + f/R ticks of U
-- microseconds. It is stored as `a`, `a:f` or `a:f:U` (the latter when U is not 1); no key means full.
-- Parameters of a limit: C (capacity), P (period, ticks), R (tokens per period), U, delay_after, D (debt).
-- All are integers, and the configuration saw to it that every product here is below 2^53.

-- Reads the stored text into state.a, state.f and state.u; state.a stays false when the text is not ours.
local function parse_bucket(state, text)
  local a = tonumber(text)
  if a then
    if a % 1 == 0 then state.a, state.f, state.u = a, 0, 1 end
    return
  end
  local whole, rest = string.match(text, '^(%d+):(%d+)$')
  local tick = '1'
  if not whole then
    whole, rest, tick = string.match(text, '^(%d+):(%d+):(10*)$')
  end
  if whole then state.a, state.f, state.u = tonumber(whole), tonumber(rest), tonumber(tick) end
end

-- The deficit d of a state in 1/R ticks (0 is full, C*P is empty), and whether the state was
-- re-anchored: one that is further ahead than the lowest state (full and debt) and one second, or not ours,
-- is "empty". Within that second (a clock that stepped back) it is believed.
local function bucket_deficit(state, t, full, lowest, rate, tick)
  local a, f = state.a, state.f
  if not a then return full, true end
  if state.u ~= tick then -- written in other ticks: round towards emptier
    if f > 0 then a = a + 1 end
    local at_us = a * state.u
    if at_us <= now then return 0, false end
    a, f = -floor(-at_us / tick), 0
  elseif f >= rate then
    f = rate - 1
  end
  local ahead = a - t
  if ahead < 0 then return 0, false end
  if ahead > floor(tolerance / tick) - floor(-lowest / rate) then return full, true end
  return ahead * rate + f, false
end

local function set_bucket(state, t, d, rate, tick)
  state.a, state.f, state.u = t + floor(d / rate), d % rate, tick
end

-- Judges limit `l`, whose parameters begin at ARGV[p], on the state this call has reached for its key.
local function judge_bucket(l, state, p)
  local capacity, period, rate, tick = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3])
  local t, full, cost = floor(now / tick), capacity * period, l.cost
  local lowest = full + tonumber(ARGV[p + 5]) * period
  local d, reanchored = 0, false
  if state.text and not state.read then parse_bucket(state, state.text) end
  state.read = true
  if state.text or state.a then d, reanchored = bucket_deficit(state, t, full, lowest, rate, tick) end
  l.period, l.rate, l.tick, l.full, l.before, l.after = period, rate, tick, full, d, d
  if cost == 0 then
    l.ok = 1
    return
  end
  if reanchored then
    set_bucket(state, t, d, rate, tick)
    state.anchor = { a = state.a, f = state.f, u = tick }
  end
  if cost > capacity then
    l.retry = -1
    return
  end
  local most = full - cost * period
  if d > most then
    l.retry = -floor((most - d) / rate) * tick
    return
  end
  l.ok, l.after = 1, d + cost * period
  set_bucket(state, t, l.after, rate, tick)
  state.changed = true
end

-- Stores a state until the millisecond after the one in which it equals "full".
local function write_bucket(key, state)
  local a, f, tick = state.a, state.f, state.u
  local value = a
  if tick ~= 1 then
    value = string.format('%.0f:%.0f:%.0f', a, f, tick)
  elseif f > 0 then
    value = string.format('%.0f:%.0f', a, f)
  end
  if f > 0 then a = a + 1 end
  redis.call('SET', key, value, lasting(a * tick))
end

-- Appends the four integers of limit `l`, whose deficit is now d, after the first n of the reply.
local function report_bucket(l, d, reply, n)
  local full = l.full
  reply[n + 1] = l.ok
  reply[n + 2] = d < full and floor((full - d) / l.period) or 0
  reply[n + 3] = l.retry
  reply[n + 4] = -floor(-d / l.rate) * l.tick
end

algorithms.b = { judge = judge_bucket, write = write_bucket, report = report_bucket }
