-- As many of K identical requests as there is room for: what K decisions one after the other, at this
-- instant, would have admitted. Sent in decide.lua's place.
--
-- KEYS and ARGV are those of a decision, the mode is K. No key stands here twice, and every algorithm is a
-- token bucket, a window or a log: one that knows its room beforehand.
-- Reply, integers only: granted, now_us, then five per limit, of the state after all charges and as the next
-- such request would see it: ok, remaining, retry_us (-1 never), reset_us (of a bucket its deficit, in 1/R
-- ticks), and how many of the requests were charged.

local limits, rooms = {}, {} -- rooms: how many requests fit, by number of the shadow limit; 0 is all that enforces

local function fresh(text)
  return { text = text, a = false, f = 0, u = 1, read = false, changed = false, anchor = false }
end

-- What a limit says of a cost on the state that was reached.
local function judge(limit, cost)
  local l = {
    algorithm = limit.algorithm, cost = cost, state = limit.state,
    ok = 0, retry = 0, wait = 0, period = 0, rate = 0, tick = 0, full = 0, before = 0, after = 0,
  }
  local failed = limit.algorithm.judge(l, limit.state, limit.p, limit.key)
  return l, failed
end

for i = 1, #KEYS do
  local key, p = KEYS[i], i * 9 - 6
  local algorithm, text = algorithms[ARGV[p]], false
  if not algorithm.lists then text = redis.pcall('GET', key) end
  if type(text) == 'table' then -- an error: only a key of another type is ours to replace
    if not string.find(text.err, 'WRONGTYPE', 1, true) then return text end
    text = ''
  end
  local limit = {
    algorithm = algorithm, key = key, p = p + 3, state = fresh(text),
    shadow = tonumber(ARGV[p + 1]), cost = tonumber(ARGV[p + 2]),
  }
  local l, failed = judge(limit, 0)
  if failed then return failed end
  if limit.cost > 0 then
    local report = {}
    algorithm.report(l, l.before, report, 0)
    local room, least = floor(report[2] / limit.cost), rooms[limit.shadow]
    if not least or room < least then rooms[limit.shadow] = room end
  end
  limits[i] = limit
end

local granted = math.min(tonumber(ARGV[2]), rooms[0] or math.huge)
local reply = { granted, now }
for i = 1, #limits do
  local limit, n = limits[i], i * 5 - 3
  local charged = limit.cost > 0 and math.min(granted, rooms[limit.shadow]) or 0
  if charged > 0 then
    judge(limit, charged * limit.cost)
    limit.algorithm.write(limit.key, limit.state, true)
    if limit.algorithm.lists then limit.state = fresh(false) end -- the list is another one now
  end
  local l = judge(limit, limit.cost)
  limit.algorithm.report(l, l.before, reply, n)
  if l.rate > 0 then reply[n + 4] = l.before end
  reply[n + 5] = charged
  if charged == 0 and limit.state.anchor then limit.algorithm.write(limit.key, limit.state.anchor, false) end
end
return reply
