-- What the other scripts begin with: how they read a row, in step with keyspace.py, and the index.

-- Lua's numbers are exact below 2^53, in microseconds the year 2255. Beyond that they are rounded, here always to where
-- nothing is claimed early: scores up, now down. The step between two numbers is 32 in the year 9999.
local EXACT = 9007199254740992
local STEP = 32
local DIGITS = 19 -- that an instant has at most
local BEYOND = 1e19 -- what is no instant any more

-- Returns claimable_at as it stands in a row, and where the token begins behind its quote; nothing if it is no row.
local function head_of(value)
  local digits, behind = string.match(value, '^%[%-?(%d+),"()')
  if digits and #digits <= DIGITS then
    return string.sub(value, 2, behind - 3), behind
  end
end

-- Takes an escape away, for `gsub`, unless it stands for what is not escaped in a token.
local function without_escape(hex)
  local code = tonumber(hex, 16)
  return (code >= 128 or not string.find(string.char(code), '[%w._-]')) and '' or nil
end

-- Returns the token in a row, with its quotes. Whatever is not written as keyspace.py does counts as an empty one.
local function token_of(value)
  local _, behind = head_of(value)
  local last = behind and string.find(value, '",', behind, true)
  local token = last and string.sub(value, behind - 1, last) or '""'
  if string.find(token, '^"[%w._-]*"$') then
    return token
  end
  local plain = string.gsub(token, '\\u([0-9a-f][0-9a-f][0-9a-f][0-9a-f])', without_escape)
  return string.find(plain, '^"[%w._-]*"$') and token or '""'
end

-- Returns what a command on a key of the index does; nothing if that key holds something else, which check.lua removes.
local function on_index(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then
    return reply
  end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then
    error(reply.err, 0)
  end
end
