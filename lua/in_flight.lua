-- Requests in flight, stored as a sorted set: slot -> when it ends. Parameters: N, lifetime of a slot
-- (microseconds), the slot, 0, 0, 0.

local function load_in_flight(key, state, lifetime)
  if state.read then return end
  state.read, state.taken = true, {}
  local live = redis.pcall('ZCOUNT', key, string.format('(%.0f', now), '+inf')
  if type(live) == 'table' then -- not ours: it starts afresh
    if not string.find(live.err, 'WRONGTYPE', 1, true) then return live end
    state.foreign, live = true, 0
  end
  state.live, state.lifetime = live, lifetime
  if live > 0 then
    state.latest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
    state.ahead = state.latest - now - lifetime > tolerance
    if state.ahead then state.latest = now + lifetime end
  end
end

local function judge_in_flight(l, state, p, key)
  local limit, lifetime, cost = tonumber(ARGV[p]), tonumber(ARGV[p + 1]), l.cost
  local failed = load_in_flight(key, state, lifetime)
  if failed then return failed end
  l.full, l.before, l.after, l.latest, l.next = limit, state.live, state.live, state.latest, now + lifetime
  if cost == 0 then
    l.ok = 1
    return
  end
  if state.ahead then state.anchor = state end
  if cost > limit then
    l.retry = -1
  elseif state.live + cost > limit then
    l.retry = 1000000 -- nobody knows when a request will end
  else
    l.ok, l.after = 1, state.live + cost
    state.live, state.latest, state.changed = l.after, l.next, true
    state.taken[#state.taken + 1] = ARGV[p + 2]
  end
end

local function write_in_flight(key, state, charged)
  if state.foreign then redis.call('DEL', key) end
  local most = now + state.lifetime
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if state.ahead then
    local ahead = redis.call('ZRANGE', key, string.format('(%.0f', most), '+inf', 'BYSCORE')
    for i = 1, #ahead do redis.call('ZADD', key, most, ahead[i]) end
  end
  if charged then
    for i = 1, #state.taken do redis.call('ZADD', key, most, state.taken[i]) end
  end
  if state.latest then expire(key, state.latest) end
end

local function report_in_flight(l, live, reply, n)
  local latest = l.latest
  if live > l.before then latest = latest and latest > l.next and latest or l.next end
  reply[n + 1] = l.ok
  reply[n + 2] = live < l.full and l.full - live or 0
  reply[n + 3] = l.retry
  reply[n + 4] = latest and latest - now or 0
end

algorithms.c = { judge = judge_in_flight, write = write_in_flight, report = report_in_flight, lists = true }
