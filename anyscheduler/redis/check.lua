-- Tells whether the index of a shard agrees with its rows, by counting: at a cost that does not grow with the rows.
--
-- A key of the index that holds something else altogether is in the way, and removed.
--
-- KEYS: rows, keys and tasks of the shard; then the `due` of each task to be checked.
-- ARGV: those tasks.
-- Returns: 1 if it agrees, else 0.

local rows, keys, tasks = KEYS[1], KEYS[2], KEYS[3]

local function is_usable(name, ...)
  local is_there = on_index(...) ~= nil
  if not is_there then
    redis.pcall('DEL', name) -- without the right to do that, it stays as it is
  end
  return is_there
end
local are_usable = is_usable(keys, 'ZCARD', keys)
are_usable = is_usable(tasks, 'SISMEMBER', tasks, '') and are_usable
for number = 4, #KEYS do
  are_usable = is_usable(KEYS[number], 'ZCARD', KEYS[number]) and are_usable
end
if not are_usable or redis.call('HLEN', rows) ~= redis.call('ZCARD', keys) then
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
  local last = redis.call('ZRANGE', KEYS[3 + number], -1, -1, 'WITHSCORES')
  if last[2] and tonumber(last[2]) >= BEYOND then
    return 0
  end
  if stored > 0 and redis.call('SISMEMBER', tasks, task) == 0 then
    return 0
  end
end
return 1
