-- A thousand clients: each request carries the next of 1,000 keys. All requests are built before the
-- run, so that the load generator spends next to nothing on them.
local requests = {}
local turn = 0

function init()
  for i = 0, 999 do
    requests[i] = wrk.format("GET", nil, { ["X-Api-Key"] = string.format("client-%04d", i) })
  end
end

function request()
  turn = (turn + 1) % 1000
  return requests[turn]
end
