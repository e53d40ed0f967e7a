-- Leaky buckets: token buckets whose admitted requests are held until their turn. The first
-- delay_after requests from idle are not held, each further one starts P/R later than the one before.

local function judge_leaky_bucket(l, state, p)
  judge_bucket(l, state, p)
  local waiting = l.before - (tonumber(ARGV[p + 4]) - 1) * l.period
  if l.cost > 0 and waiting > 0 then l.wait = -floor(-waiting / l.rate) * l.tick end
end

algorithms.q = { judge = judge_leaky_bucket, write = write_bucket, report = report_bucket }
