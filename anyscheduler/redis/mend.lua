-- Makes the index of a shard agree with its rows, for some keys.
--
-- KEYS: rows, keys and tasks of the shard; then the `due` of each task that occurs.
-- ARGV: 1 JSON list with two elements for each row: its `due`, from 1 on, and its key.
-- Returns: how many entries were wrong.

local rows, keys, tasks = KEYS[1], KEYS[2], KEYS[3]
local entries = cjson.decode(ARGV[1])
local wrong = 0

for entry = 1, #entries, 2 do
  local due, key = KEYS[3 + entries[entry]], entries[entry + 1]
  local value = redis.call('HMGET', rows, key)[1]
  if string.match(due, ':due:(.*)$') ~= string.match(key, '^[^:]*') then
    wrong = wrong + redis.call('ZREM', due, key) -- a row of another task
  elseif value then
    local score = redis.call('ZSCORE', due, key)
    -- What is no row at all is listed as claimable at once, if it is not listed: whoever claims it will report it.
    local wanted = tonumber(head_of(value) or score) or 0
    if math.abs(wanted) >= BEYOND then
      wanted = 0
    end
    if wanted >= EXACT then
      wanted = wanted + STEP
    end
    if tonumber(score) ~= wanted then
      redis.call('ZADD', due, string.format('%.0f', wanted), key)
      wrong = wrong + 1
    end
    wrong = wrong + redis.call('ZADD', keys, 'NX', 0, key)
    wrong = wrong + redis.call('SADD', tasks, string.match(key, '^[^:]*'))
  else
    wrong = wrong + redis.call('ZREM', due, key) + redis.call('ZREM', keys, key)
  end
end
return wrong
