-- Penalties, stored as `strikes:length:until:blocked`: strikes since the last block, the last block's length,
-- until when denials are no strikes, until when the key is blocked (microseconds).
-- Parameters: strikes that block, first and longest block (microseconds), how many limits before it it watches
-- (0: only whether the penalty before it blocked a key that it knew no block of), the longest round, 0.

local function judge_penalty(l, state, p)
  local longest = tonumber(ARGV[p + 2])
  if not state.read then
    state.read, state.longest = true, longest
    state.strikes, state.length, state.till, state.blocked = 0, 0, 0, 0
    local strikes, length, till, blocked = string.match(state.text or '', '^(%d+):(%d+):(%d+):(%d+)$')
    if strikes and math.max(tonumber(till), tonumber(blocked)) + longest > now then
      state.strikes, state.length = tonumber(strikes), tonumber(length)
      state.till, state.blocked = tonumber(till), tonumber(blocked)
    end
  end
  l.full, l.watches = tonumber(ARGV[p]), tonumber(ARGV[p + 3])
  l.first, l.longest = tonumber(ARGV[p + 1]), longest
  if state.blocked - now > longest + tolerance or state.till - now > tonumber(ARGV[p + 4]) + tolerance then
    state.blocked, state.till = math.min(state.blocked, now + longest), math.min(state.till, now + longest)
    if l.cost > 0 then state.anchor = state end
  end
  if l.cost > 0 and state.blocked > now then
    l.retry = state.blocked - now
  else
    l.ok = 1
  end
end

-- One strike more, and a block when that was the last of so many.
local function struck(l, state)
  state.strikes, state.anchor = state.strikes + 1, state
  if state.strikes >= l.full then
    l.blocks_anew = state.length == 0
    local length = l.blocks_anew and l.first or state.length * 2
    if length > l.longest then length = l.longest end
    state.strikes, state.length, state.blocked = 0, length, now + length
    l.ok, l.retry = 0, length
  end
end

-- A limit beside it denied for `retry` (-1: for ever): perhaps a strike, perhaps a block.
local function strike(l, state, retry)
  if l.ok == 0 or l.cost == 0 then return end
  if l.watches == 0 then -- of a network: strikes count for the longest block from the first of them
    if state.strikes == 0 or state.till + l.longest <= now then state.strikes, state.till = 0, now end
    return struck(l, state)
  end
  local ends = now + (retry < 0 and l.longest or retry)
  if state.till > now then -- of the last strike's round, which ends when the cheapest of it is told to come
    if ends < state.till then state.till, state.anchor = ends, state end
    return
  end
  state.till = ends
  struck(l, state)
end

local function write_penalty(key, state)
  local text = string.format('%.0f:%.0f:%.0f:%.0f', state.strikes, state.length, state.till, state.blocked)
  redis.call('SET', key, text, lasting((math.max(state.till, state.blocked) + state.longest)))
end

local function report_penalty(l, _, reply, n)
  local state = l.state
  local last = math.max(state.till, state.blocked)
  local left = l.full - state.strikes
  reply[n + 1] = l.ok
  reply[n + 2] = (state.blocked > now or left < 0) and 0 or left
  reply[n + 3] = l.retry
  reply[n + 4] = last > 0 and last + l.longest - now or 0
end

algorithms.p = { judge = judge_penalty, write = write_penalty, report = report_penalty, strike = strike }
