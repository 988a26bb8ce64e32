-- Tells whether the index of a shard agrees with its rows, by counting: at a cost that does not grow with the rows.
--
-- KEYS: rows, keys and tasks of the shard; then the `due` of each task to be checked.
-- ARGV: those tasks.
-- Returns: 1 if it agrees, else 0.

local rows, keys, tasks = KEYS[1], KEYS[2], KEYS[3]

if redis.call('HLEN', rows) ~= redis.call('ZCARD', keys) then
  return 0
end
for number, task in ipairs(ARGV) do
  -- All keys of a task are the task itself, or begin with it and a colon; the semicolon is the next character.
  local stored = redis.call('ZLEXCOUNT', keys, '[' .. task .. ':', '(' .. task .. ';')
  if redis.call('ZSCORE', keys, task) then
    stored = stored + 1
  end
  if redis.call('ZCARD', KEYS[3 + number]) ~= stored then
    return 0
  end
  if stored > 0 and redis.call('SISMEMBER', tasks, task) == 0 then
    return 0
  end
end
return 1
