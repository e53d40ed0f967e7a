-- Sliding windows, stored as `index:current:previous`. Parameters: L, W (ticks), U, 0, 0, D.

local function parse_sliding_window(state, limit)
  if state.read then return end
  state.read = true
  if not state.text then return end
  local index, current, previous = string.match(state.text, '^(%d+):(%d+):(%d+)$')
  if index then
    state.index, state.current, state.previous = tonumber(index), tonumber(current), tonumber(previous)
  else -- not ours: full, as if stored far ahead
    state.index, state.current, state.previous = math.huge, limit, 0
  end
end

-- Index, current, previous, ticks since the window began, ticks it lies ahead, and whether the counts were
-- carried over from a state too far ahead.
local function read_sliding_window(state, most, width, tick)
  local t = floor(now / tick)
  local i = floor(t / width)
  local e = t - i * width
  local stored = state.index
  if not stored then return i, 0, 0, e, 0, false end
  local current, previous = math.min(state.current, most), math.min(state.previous, most)
  if stored == i then return i, current, previous, e, 0, false end
  if stored < i then
    if stored ~= i - 1 then current = 0 end
    return i, 0, current, e, 0, false
  end
  local ahead = (stored - i) * width - e
  if ahead <= floor(tolerance / tick) then return stored, current, previous, 0, ahead, false end
  return i, current, previous, e, 0, true
end

local function judge_sliding_window(l, state, p)
  local limit, width, tick, cost = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2]), l.cost
  parse_sliding_window(state, limit)
  local i, current, previous, e, ahead, anchored = read_sliding_window(state, limit + tonumber(ARGV[p + 5]), width, tick)
  l.full, l.tick, l.period, l.before, l.after = limit, tick, width, current, current
  l.previous, l.elapsed, l.ahead = previous, e, ahead
  if cost == 0 then
    l.ok = 1
    return
  end
  if anchored then
    state.index, state.current, state.previous = i, current, previous
    state.anchor = { index = i, current = current, previous = previous, width = width * tick }
  end
  local room = limit - cost
  if room < 0 then
    l.retry = -1
    return
  end
  local ticks
  if current > room then
    ticks = 2 * width - e - floor(room * width / current)
  else
    room = room - current
    if previous * (width - e) <= room * width then
      l.ok, l.after = 1, current + cost
      state.index, state.current, state.previous, state.width = i, l.after, previous, width * tick
      state.changed = true
      return
    end
    ticks = width - floor(room * width / previous) - e
  end
  l.retry = (ticks + ahead) * tick
end

local function write_sliding_window(key, state)
  local windows = state.current > 0 and 2 or state.previous > 0 and 1 or 0
  if windows == 0 then return redis.call('DEL', key) end
  local text = string.format('%.0f:%.0f:%.0f', state.index, state.current, state.previous)
  redis.call('SET', key, text, lasting((state.index + windows) * state.width))
end

local function report_sliding_window(l, current, reply, n)
  local left = l.full - current + floor(-l.previous * (l.period - l.elapsed) / l.period)
  local windows = current > 0 and 2 or l.previous > 0 and 1 or 0
  reply[n + 1] = l.ok
  reply[n + 2] = left > 0 and left or 0
  reply[n + 3] = l.retry
  reply[n + 4] = windows == 0 and 0 or (windows * l.period - l.elapsed + l.ahead) * l.tick
end

algorithms.s = { judge = judge_sliding_window, write = write_sliding_window, report = report_sliding_window }
