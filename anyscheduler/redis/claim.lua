-- Leases up to a number of due rows, fairly between tasks, and tells when the next one is due.
--
-- KEYS: rows and keys of each shard, in pairs; then the `due` of each request, in their order.
-- ARGV: 1 how many rows at most
--       2 their new token, as it stands in a row
--       3 now, in microseconds; "" for this server's clock
--       4 how many shards
--       5 JSON list with the lease of each request in microseconds; with `now` given: with the end of each lease, as text
--       6 JSON list with the shard of each request, from 1 on; "" if there is one shard only
--       7 the latest instant that this server's clock is believed, in microseconds; "" if it is believed in any case
-- Returns: now, as given or as the clock shows it; the next claimable_at, or ""; and, if there are rows: JSON list of their keys; JSON list of the lengths
-- of their texts; the texts, separated by commas.

local limit = tonumber(ARGV[1])
local token = ARGV[2]
local shards = tonumber(ARGV[4])
local ends = cjson.decode(ARGV[5])
local shard_of = ARGV[6] ~= '' and cjson.decode(ARGV[6]) or nil
local requests = #KEYS - 2 * shards

local CHUNK = 1000 -- arguments that are unpacked into one call
local HEALED = 1000 -- entries without a row that one call removes

local function score_of(text)
  local score = tonumber(text)
  return score >= EXACT and string.format('%.0f', score + STEP) or text
end

local now, now_text
if ARGV[3] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
  now_text = string.format('%.0f', now)
  now = math.min(now, tonumber(ARGV[7]) or now)
else
  now = tonumber(ARGV[3])
  now_text = ARGV[3]
  if now >= EXACT then
    now = now - STEP
  end
end

-- Returns how a row begins that is leased to the request, and its score. Most requests have the same lease.
local heads, scores = {}, {}
local function leased(request)
  local lease = ends[request]
  if not heads[lease] then
    local text = ARGV[3] == '' and string.format('%.0f', now + lease) or lease
    heads[lease], scores[lease] = '[' .. text .. ',', score_of(text)
  end
  return heads[lease], scores[lease]
end

-- Returns the token that takes the place of a stored one that begins with `time`, with its quotes, in step with
-- `lease.later_token`.
local drawn_time = string.sub(token, 2, 16)
local function later_token(time)
  if time < drawn_time or not string.find(time .. drawn_time, '^' .. string.rep('[0-9a-f]', 30) .. '$') then
    return token
  end
  return '"' .. string.format('%015x', tonumber(time, 16) + 1) .. string.sub(token, 17)
end

local function rows_of(request)
  return KEYS[shard_of and 2 * shard_of[request] - 1 or 1]
end

local function keys_of(request)
  return KEYS[shard_of and 2 * shard_of[request] or 2]
end

local function due_of(request)
  return KEYS[2 * shards + request]
end

local next_score, next_key, next_request

-- Returns when the request's first row is claimable, by the index, and its key; nothing if it has no rows. Then the same
-- of its second row.
local function first_of(request)
  local first = on_index('ZRANGE', due_of(request), 0, 1, 'WITHSCORES')
  local score, second = first and tonumber(first[2]), first and tonumber(first[4])
  if score and score < BEYOND then
    return math.max(score, -BEYOND), first[1], second and second < BEYOND and math.max(second, -BEYOND) or nil, first[3]
  end
end

local function note_next(request, score, key)
  if score and (not next_score or score < next_score) then
    next_score, next_key, next_request = score, key, request
  end
end

local healed = 0
-- The rows that are due: their keys, what stands behind their tokens, and the times in these. For each request, which of
-- them are its own, in their order.
local row_keys, rests, times = {}, {}, {}
local queues = {}
local now_score = string.format('%.0f', now)

-- Appends a row that is due, as the index says, to its request's queue; mends the index if the row says otherwise.
local function take(request, key, value)
  local claimable_at, behind
  if value then
    claimable_at, behind = head_of(value)
  end
  if not value then
    -- An entry without its row, such as the eviction of a key leaves behind.
    redis.call('ZREM', due_of(request), key)
    on_index('ZREM', keys_of(request), key)
    healed = healed + 1
  elseif claimable_at and tonumber(claimable_at) > now then
    -- Listed too early: the row may be under somebody's lease.
    redis.call('ZADD', due_of(request), score_of(claimable_at), key)
    healed = healed + 1
  else
    -- What is no row gets a head all the same, by which it can be released; none of its text is lost.
    local _, last = string.find(value, '",', behind or #value, true)
    local row, queue = #row_keys + 1, queues[request]
    row_keys[row], rests[row] = key, last and string.sub(value, last + 1) or value
    times[row] = behind and string.sub(value, behind, behind + 14) or ''
    queue[#queue + 1] = row
  end
end

-- Appends up to `count` more due rows of the request to its queue; returns whether there may be still more.
local function fetch(request, count)
  local found =
    redis.call('ZRANGEBYSCORE', due_of(request), '-inf', now_score, 'LIMIT', #queues[request], count)
  if #found == 0 then
    return false
  end
  local values = redis.call('HMGET', rows_of(request), unpack(found))
  for place, key in ipairs(found) do
    take(request, key, values[place])
  end
  return #found == count
end

-- Who has something due gets an even share of what is still to be claimed, and again, until nobody has more. Those with
-- one due row, as static tasks have, are read together.
local served, active = {}, {}
local single, second_scores, second_keys = {}, {}, {} -- the key of the only due row, and the row behind it
local singles = {}
local spare = {} -- what is due and comes behind the limit
for request = 1, requests do
  local score, key, second, second_key = first_of(request)
  if score and score <= now and #served == limit then
    spare[#spare + 1] = { request, score, key }
  elseif score and score <= now then
    served[#served + 1] = request
    queues[request] = {}
    if second and second <= now then
      active[#active + 1] = request
    else
      single[request], second_scores[request], second_keys[request] = key, second, second_key
      local name = rows_of(request)
      singles[name] = singles[name] or {}
      table.insert(singles[name], request)
    end
  else
    note_next(request, score, key)
  end
end
for name, own in pairs(singles) do
  for begin = 1, #own, CHUNK do
    local keys = {}
    for place = begin, math.min(begin + CHUNK - 1, #own) do
      keys[#keys + 1] = single[own[place]]
    end
    local values = redis.call('HMGET', name, unpack(keys))
    for place, key in ipairs(keys) do
      take(own[begin + place - 1], key, values[place])
    end
  end
end
while #row_keys < limit and #active > 0 and healed < HEALED do
  local share = math.min(math.ceil((limit - #row_keys) / #active), CHUNK)
  local more = {}
  for _, request in ipairs(active) do
    if fetch(request, share) then
      more[#more + 1] = request
    end
  end
  active = more
end
-- Where entries were without rows there is room for others.
local first_spare = 1
while #row_keys < limit and first_spare <= #spare and healed < HEALED do
  local request = spare[first_spare][1]
  first_spare = first_spare + 1
  served[#served + 1] = request
  queues[request] = {}
  fetch(request, 1)
end
for place = first_spare, #spare do
  note_next(unpack(spare[place]))
end

-- One of each, then a second one of each, and so on. What is written is gathered by the key it belongs to.
local keys, lengths, texts = {}, {}, {}
local writes = {}
local function gather(command, name, first, second)
  local arguments = writes[name]
  if not arguments then
    arguments = { command, name }
    writes[name] = arguments
  elseif #arguments > CHUNK then
    redis.call(unpack(arguments))
    arguments = { command, name }
    writes[name] = arguments
  end
  local size = #arguments
  arguments[size + 1], arguments[size + 2] = first, second
end

local count, turn = 0, 1
local remaining = {}
for place, request in ipairs(served) do
  remaining[place] = request
end
while count < limit and #remaining > 0 do
  local kept = 0
  for place = 1, #remaining do
    local request = remaining[place]
    local row = queues[request][turn]
    if row and count < limit then
      local head, score = leased(request)
      local key, text = row_keys[row], head .. later_token(times[row]) .. ',' .. rests[row]
      gather('HSET', rows_of(request), key, text)
      if single[request] then
        redis.call('ZADD', due_of(request), score, key)
      else
        gather('ZADD', due_of(request), score, key)
      end
      count = count + 1
      keys[count], lengths[count], texts[count] = key, #text, text
      kept = kept + 1
      remaining[kept] = request
    end
  end
  for place = #remaining, kept + 1, -1 do
    remaining[place] = nil
  end
  turn = turn + 1
end
for _, arguments in pairs(writes) do
  redis.call(unpack(arguments))
end

for _, request in ipairs(served) do
  if single[request] and #queues[request] == 1 then
    local _, score = leased(request)
    note_next(request, tonumber(score), single[request])
    note_next(request, second_scores[request], second_keys[request])
  else
    note_next(request, first_of(request))
  end
end
local next_text = ''
if next_score then
  next_text = string.format('%.0f', next_score)
  if next_score >= EXACT then
    local row = redis.call('HMGET', rows_of(next_request), next_key)[1]
    next_text = row and head_of(row) or next_text
  end
end
if count == 0 then
  return { now_text, next_text }
end
return { now_text, next_text, cjson.encode(keys), cjson.encode(lengths), table.concat(texts, ',') }
