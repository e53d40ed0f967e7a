-- Sliding logs, stored as a list of instants, oldest first. Parameters: L, W (microseconds), 0, 0, 0, D.
--
-- A state that this call has reached: `total` entries as stored, `first` the first live one, `added` more at `next`.

-- The position of the first entry beyond an instant.
local function first_beyond(key, total, instant)
  local low, high = 0, total
  while low < high do
    local middle = floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', key, middle)) > instant then high = middle else low = middle + 1 end
  end
  return low
end

local function load_sliding_log(key, state, width)
  if state.read then return end
  state.read, state.added, state.width = true, 0, width
  local total = redis.pcall('LLEN', key)
  if type(total) == 'table' then -- not ours: it starts afresh
    if not string.find(total.err, 'WRONGTYPE', 1, true) then return total end
    state.foreign, total = true, 0
  end
  state.total, state.first = total, first_beyond(key, total, now - width)
  if state.first < total then
    state.newest = tonumber(redis.call('LINDEX', key, -1))
    state.ahead = state.newest - now > tolerance
    if state.ahead then state.newest = now end
  end
end

local function judge_sliding_log(l, state, p, key)
  local limit, width, cost = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), l.cost
  local failed = load_sliding_log(key, state, width)
  if failed then return failed end
  local live = state.total - state.first + state.added
  local newest = state.newest
  l.full, l.period, l.before, l.after = limit, width, live, live
  l.newest = newest
  if cost == 0 then
    l.ok = 1
    return
  end
  if state.ahead then state.anchor = state end
  local next = newest and newest > now and newest or now
  if cost > limit then
    l.retry = -1
  elseif live + cost <= limit then
    l.ok, l.after, l.next = 1, live + cost, next
    state.added, state.newest, state.changed = state.added + cost, next, true
  else
    local position = state.first + live + cost - limit - 1
    local entry = position < state.total and tonumber(redis.call('LINDEX', key, position)) or next
    if state.ahead and entry > now then entry = now end
    l.retry = entry + width - now
  end
end

-- Appends one instant several times.
local function push_log(key, count, instant)
  while count > 0 do
    local batch = count < 100 and count or 100
    local entries = {}
    for i = 1, batch do entries[i] = instant end
    redis.call('RPUSH', key, (table.unpack or unpack)(entries))
    count = count - batch
  end
end

-- Entries ahead of a clock that stepped back become entries of now.
local function anchor_log(key, state)
  local kept = first_beyond(key, state.total, now)
  if kept < state.total then
    if kept > 0 then redis.call('LTRIM', key, 0, kept - 1) else redis.call('DEL', key) end
    push_log(key, state.total - kept, now)
  end
end

local function write_sliding_log(key, state, charged)
  if state.foreign then redis.call('DEL', key) end
  if state.ahead then anchor_log(key, state) end
  if state.first > 0 then
    if state.first < state.total then redis.call('LTRIM', key, state.first, -1) else redis.call('DEL', key) end
  end
  if charged then push_log(key, state.added, state.newest) end
  if state.newest then expire(key, (state.newest + state.width)) end
end

local function report_sliding_log(l, live, reply, n)
  local newest = live > l.before and l.next or l.newest
  reply[n + 1] = l.ok
  reply[n + 2] = live < l.full and l.full - live or 0
  reply[n + 3] = l.retry
  reply[n + 4] = newest and newest + l.period - now or 0
end

algorithms.l = { judge = judge_sliding_log, write = write_sliding_log, report = report_sliding_log, lists = true }
