-- Fixed windows, stored as `start:count`. Parameters: L, W (microseconds), two windows [from, to) and [to, next) of
-- the clock, beyond which all are W long (to = 0: the first request opens the window), D.

-- The window that holds an instant, without looking at what is stored.
local function fixed_window_at(instant, width, from, to, next)
  if to == 0 then return instant, instant + width end
  if instant >= next then
    from = next + floor((instant - next) / width) * width
  elseif instant >= to then
    return to, next
  elseif instant >= from then
    return from, to
  else
    from = from + floor((instant - from) / width) * width
  end
  return from, from + width
end

-- Reads state.text once into state.start and state.count; a text that is not ours counts as a full window of now.
local function parse_fixed_window(state, limit)
  if state.read then return end
  state.read = true
  if not state.text then return end
  local start, count = string.match(state.text, '^(%d+):(%d+)$')
  if start then
    state.start, state.count = tonumber(start), tonumber(count)
  else
    state.start, state.count = math.huge, limit
  end
end

-- The window that counts now, its count, and whether that was carried over from a state too far ahead.
local function read_fixed_window(state, width, from, to, next)
  local stored = state.start
  local s, e = fixed_window_at(now, width, from, to, next)
  if to == 0 and stored and stored <= now and now < stored + width then s, e = stored, stored + width end
  if not stored or stored < s then return s, e, 0, false end
  if stored > s and stored - now <= tolerance then
    local _, ends = fixed_window_at(stored, width, from, to, next)
    return stored, ends, state.count, false
  end
  return s, e, state.count, stored > s
end

local function judge_fixed_window(l, state, p)
  local limit, cost = tonumber(ARGV[p]), l.cost
  parse_fixed_window(state, limit)
  local width, from, to, next = tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3]), tonumber(ARGV[p + 4])
  local s, e, count, anchored = read_fixed_window(state, width, from, to, next)
  l.full, l.tick, l.period, l.before, l.after = limit, 1, e - now, count, count
  l.stop = e
  if cost == 0 then
    l.ok = 1
    return
  end
  if anchored then
    state.start, state.count = s, count
    state.anchor = { start = s, count = count, stop = e }
  end
  if cost > limit then
    l.retry = -1
  elseif count > limit - cost then
    l.retry = e - now
  else
    l.ok, l.after = 1, count + cost
    state.start, state.count, state.stop = s, l.after, e
    state.changed = true
  end
end

local function write_fixed_window(key, state)
  if state.count == 0 then return redis.call('DEL', key) end
  redis.call('SET', key, string.format('%.0f:%.0f', state.start, state.count), lasting(state.stop))
end

local function report_fixed_window(l, count, reply, n)
  reply[n + 1] = l.ok
  reply[n + 2] = count < l.full and l.full - count or 0
  reply[n + 3] = l.retry
  reply[n + 4] = count > 0 and l.period or 0
end

algorithms.f = { judge = judge_fixed_window, write = write_fixed_window, report = report_fixed_window }
