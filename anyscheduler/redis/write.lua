-- Applies each change whose expected token is still the stored one, and keeps the index in step.
--
-- KEYS: rows, keys and tasks of each shard; then the `due` of each task that occurs.
-- ARGV: 1 JSON object: "shards", how many; "shard_of", the shard of each `due`, from 1 on; "changes", four elements for
--         each change: its `due` from 1 on, its key, the token it expects as it stands in a row ("" if no row may
--         exist), and the length of the new row's text (0 to delete it)
--       2 the texts of the new rows, one behind the other
--       3 the channel to announce on; "" for none
-- Returns: a "1" for each change that applied, a "0" for each that did not.

local meta = cjson.decode(ARGV[1])
local changes, shard_of = meta.changes, meta.shard_of
local texts = ARGV[2]
local count = #changes / 4

local CHUNK = 1000

local function score_beyond(instant)
  return string.format('%.0f', instant + STEP)
end

local function rows_of(due)
  return KEYS[3 * shard_of[due] - 2]
end

local function keys_of(due)
  return KEYS[3 * shard_of[due] - 1]
end

local function tasks_of(due)
  return KEYS[3 * shard_of[due]]
end

local function due_of(due)
  return KEYS[3 * meta.shards + due]
end

-- No key occurs twice, so all can be read before the first one is written.
local stored = {}
local batches = {}
local function read(batch)
  for place, value in ipairs(redis.call('HMGET', batch.name, unpack(batch.keys))) do
    stored[batch.places[place]] = value
  end
end
for change = 1, count do
  local name = rows_of(changes[4 * change - 3])
  local batch = batches[name]
  if batch and #batch.keys >= CHUNK then
    read(batch)
    batch = nil
  end
  if not batch then
    batch = { name = name, keys = {}, places = {} }
    batches[name] = batch
  end
  batch.keys[#batch.keys + 1] = changes[4 * change - 2]
  batch.places[#batch.places + 1] = change
end
for _, batch in pairs(batches) do
  read(batch)
end

-- What is written is gathered by command and key.
local puts, schedules, lists, removes, unschedules, unlists = {}, {}, {}, {}, {}, {}
local function gather(lists_by_name, command, name, first, second)
  local arguments = lists_by_name[name]
  local size = arguments and #arguments or 0
  if size > CHUNK then
    on_index(unpack(arguments))
  end
  if size == 0 or size > CHUNK then
    arguments, size = { command, name }, 2
    lists_by_name[name] = arguments
  end
  arguments[size + 1], arguments[size + 2] = first, second
end

local applied = {}
local earliest, earliest_text
local inserted, deleted = {}, {}
local position = 1
for change = 1, count do
  local due, key = changes[4 * change - 3], changes[4 * change - 2]
  local expected, length = changes[4 * change - 1], changes[4 * change]
  local value = stored[change]
  if (value and token_of(value) or '') ~= expected then
    applied[change] = '0'
  elseif length == 0 then
    applied[change] = '1'
    gather(removes, 'HDEL', rows_of(due), key)
    gather(unschedules, 'ZREM', due_of(due), key)
    gather(unlists, 'ZREM', keys_of(due), key)
    deleted[due] = key
  else
    applied[change] = '1'
    local text = string.sub(texts, position, position + length - 1)
    local claimable_at = string.match(text, '%-?%d+', 2)
    local instant = tonumber(claimable_at)
    gather(puts, 'HSET', rows_of(due), key, text)
    gather(schedules, 'ZADD', due_of(due), instant >= EXACT and score_beyond(instant) or claimable_at, key)
    if not value then
      gather(lists, 'ZADD', keys_of(due), '0', key)
      inserted[due] = key
    end
    if not earliest or instant < earliest then
      earliest, earliest_text = instant, claimable_at
    end
  end
  position = position + length
end
for _, lists_by_name in ipairs({ puts, schedules, lists, removes, unschedules, unlists }) do
  for _, arguments in pairs(lists_by_name) do
    on_index(unpack(arguments)) -- `rows` have been read by now, and so are what they should be
  end
end

local function task_of(key)
  return string.match(key, '^[^:]*')
end
for due, key in pairs(deleted) do
  if redis.call('EXISTS', due_of(due)) == 0 then
    on_index('SREM', tasks_of(due), task_of(key))
  end
end
for due, key in pairs(inserted) do
  on_index('SADD', tasks_of(due), task_of(key))
end

if earliest and ARGV[3] ~= '' then
  -- Without the right to publish, others find it by polling.
  redis.pcall('PUBLISH', ARGV[3], earliest_text)
end
return table.concat(applied)
