-- One decision about several limits: all of the enforced ones are charged or none is.
-- A shadow limit decides nothing; it is charged when the request is admitted and it would admit too.

local limits, states, shadows = {}, {}, {}
local granted, wait, retry = 1, 0, 0

for i = 1, #KEYS do
  local key, p = KEYS[i], i * 9 - 6
  local algorithm = algorithms[ARGV[p]]
  local state = states[key]
  if not state then
    local text = false
    if not algorithm.lists then text = redis.pcall('GET', key) end
    if type(text) == 'table' then -- an error: only a key of another type is ours to replace
      if not string.find(text.err, 'WRONGTYPE', 1, true) then return text end
      text = ''
    end
    state = { text = text, a = false, f = 0, u = 1, read = false, changed = false, anchor = false }
    states[key] = state
  end
  -- Every field of a bucket is named here so that the table is allocated once.
  local l = {
    algorithm = algorithm, shadow = tonumber(ARGV[p + 1]), cost = tonumber(ARGV[p + 2]), state = state,
    ok = 0, retry = 0, wait = 0, period = 0, rate = 0, tick = 0, full = 0, before = 0, after = 0,
  }
  local failed = algorithm.judge(l, state, p + 3, key)
  if failed then return failed end
  limits[i] = l
end

for i = 1, #limits do
  local l = limits[i]
  if l.watches == 0 then -- a penalty of a network: was the part of it that the key is in blocked just now?
    if limits[i - 1].blocks_anew then l.algorithm.strike(l, l.state, 0) end
  elseif l.watches then -- a penalty: is there a denial among the limits that it watches?
    local longest = 0
    for j = math.max(i - l.watches, 1), i - 1 do
      local denied = limits[j].retry
      if denied < 0 or longest < 0 then longest = -1 elseif denied > longest then longest = denied end
    end
    if longest ~= 0 then l.algorithm.strike(l, l.state, longest) end
  end
  if l.shadow > 0 then
    if l.ok == 0 then shadows[l.shadow] = true end
  elseif l.ok == 0 then
    granted = 0
    if l.retry < 0 or retry < 0 then retry = -1 elseif l.retry > retry then retry = l.retry end
  elseif l.wait > wait then
    wait = l.wait
  end
end

local writes = ARGV[2] ~= '0'
local reply = { granted, now, granted * wait, retry }
for i = 1, #limits do
  local l = limits[i]
  local state = l.state
  local charged = granted == 1 and writes and not shadows[l.shadow]
  l.algorithm.report(l, charged and l.after or l.before, reply, i * 4)
  -- A key that stands here twice is written once, with all that was charged.
  if charged and state.changed then
    l.algorithm.write(KEYS[i], state, true)
    state.changed, state.anchor = false, false
  elseif state.anchor and writes then
    l.algorithm.write(KEYS[i], state.anchor, false)
    state.anchor = false
  end
end
return reply
