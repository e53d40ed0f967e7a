-- Makes one state equal to "never seen".
-- KEYS[1] the state   ARGV[1] the clock, not needed
redis.call('DEL', KEYS[1])
return 1
