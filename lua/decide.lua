-- One decision about several limits: all of the enforced ones are charged or none is.
-- A shadow limit decides nothing; it is charged when the request is admitted and it would admit too.

local limits, states = {}, {}
local granted, wait, retry = 1, 0, 0

for i = 1, #KEYS do
  local key, p = KEYS[i], i * 8 - 5
  local state = states[key]
  if not state then
    local text = redis.pcall('GET', key)
    if type(text) == 'table' then -- an error: only a key of another type is ours to replace
      if not string.find(text.err, 'WRONGTYPE', 1, true) then return text end
      text = ''
    end
    state = { text = text, a = false, f = 0, u = 1, read = false, changed = false, anchor = false }
    states[key] = state
  end
  -- Every field is named here so that the table is allocated once.
  local l = {
    algorithm = algorithms[ARGV[p]], shadow = ARGV[p + 1] == '1', cost = tonumber(ARGV[p + 2]), state = state,
    ok = 0, retry = 0, wait = 0, period = 0, rate = 0, tick = 0, full = 0, before = 0, after = 0,
  }
  l.algorithm.judge(l, state, p + 3)
  limits[i] = l
  if not l.shadow then
    if l.ok == 0 then
      granted = 0
      if l.retry < 0 or retry < 0 then retry = -1 elseif l.retry > retry then retry = l.retry end
    elseif l.wait > wait then
      wait = l.wait
    end
  end
end

local charged = granted == 1 and ARGV[2] == '1'
local reply = { granted, now, granted * wait, retry }
for i = 1, #limits do
  local l = limits[i]
  local state = l.state
  l.algorithm.report(l, charged and l.after or l.before, reply, i * 4)
  if charged and state.changed then
    l.algorithm.write(KEYS[i], state)
  elseif state.anchor and ARGV[2] == '1' then
    l.algorithm.write(KEYS[i], state.anchor)
  end
  state.changed, state.anchor = false, false
end
return reply
