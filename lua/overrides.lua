-- Overrides that are set while the proxies run: one hash with a field per override, read and changed here only.
-- It is not part of any decision. A value reads "<end, ms since 1970> <what holds>"; the field "~version" has
-- another value after every change.
--
-- KEYS[1] the hash. ARGV: now in microseconds, or 0 for the server's clock; a verb; and for
--   read    version seen, first entry, how many   {now ms}, when the version is that one; else
--                                                 {now ms, version, entries in all, field, value, ...}
--   set     field, ttl in ms, what holds, most    1, or 0 when there are so many already
--   remove  field                                 1, or 0 when there was none
local key, verb = KEYS[1], ARGV[2]
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local now_ms = math.floor(now / 1000)
local version = redis.call('HGET', key, '~version') or ''

local function changed()
  local next = tonumber(version) or 0
  if next < now then next = now else next = next + 1 end
  redis.call('HSET', key, '~version', string.format('%.0f', next))
end

if verb == 'read' then
  if version == ARGV[3] then return { now_ms } end
  local fields = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if field ~= '~version' then fields[#fields + 1] = field end
  end
  table.sort(fields)
  local reply, first = { now_ms, version, #fields }, tonumber(ARGV[4])
  for n = first + 1, math.min(first + tonumber(ARGV[5]), #fields) do
    reply[#reply + 1] = fields[n]
    reply[#reply + 1] = redis.call('HGET', key, fields[n])
  end
  return reply
end

if verb == 'remove' then
  if redis.call('HDEL', key, ARGV[3]) == 0 then return 0 end
  changed()
  return 1
end

local ends = now_ms + tonumber(ARGV[4])
local latest, count = ends, 0
local all = redis.call('HGETALL', key)
for n = 1, #all, 2 do
  local field = all[n]
  local other = tonumber(string.match(all[n + 1], '^%d+'))
  if field == '~version' or field == ARGV[3] then
  elseif not other or other <= now_ms then
    redis.call('HDEL', key, field)
  else
    count = count + 1
    if other > latest then latest = other end
  end
end
if count >= tonumber(ARGV[6]) then return 0 end
redis.call('HSET', key, ARGV[3], string.format('%.0f ', ends) .. ARGV[5])
changed()
redis.call('PEXPIREAT', key, string.format('%.0f', latest + 1))
return 1
