"""Lua scripts of the state store. A script runs in Redis without a break.

A pipeline sends few scripts with many keys: Redis and redis-py pay for each call, and a text is hashed in 2 us. So they
are sent whole: a script that is called by its hash may be unknown after a restart of Redis, amid a pipeline.
"""

# Return `rev` and `history` of each record, or the error of its key as a text. One reply costs a client a fifth of
# many. KEYS: records
LOAD = """
local records = {}
for at, key in ipairs(KEYS) do
  local record = redis.pcall('HMGET', key, 'rev', 'history')
  records[at] = record.err or record
end
return records"""

# Return the places of the records whose `rev` has changed. KEYS: records; ARGV: the rev of each that is known
CHANGED = """
local changed = {}
for at, key in ipairs(KEYS) do
  local record = redis.pcall('HMGET', key, 'rev')
  if record.err or (record[1] or '0') ~= ARGV[at] then changed[#changed + 1] = at end
end
return changed"""

# Compare the `rev` of each record and set: 1 written, 0 another rev, or the error of its key as a text. KEYS: records;
# ARGV for each: expected rev, how many names and values follow, the names and values of its fields
COMPARE_AND_SET = """
local verdicts = {}
local at = 1
for n, key in ipairs(KEYS) do
  local last = at + 1 + ARGV[at + 1]
  local rev = redis.pcall('HGET', key, 'rev')
  if type(rev) == 'table' then
    verdicts[n] = rev.err
  elseif (rev or '0') ~= ARGV[at] then
    verdicts[n] = 0
  else
    redis.call('HSET', key, unpack(ARGV, at + 2, last))
    verdicts[n] = 1
  end
  at = last + 1
end
return verdicts"""

# Set each socket unless the stored one is newer; the verdicts are those of COMPARE_AND_SET. KEYS: sockets; ARGV for
# each: version, seconds to keep it (0: forever), how many names and values follow, the names and values of its fields
SET_IF_NEWER = """
local verdicts = {}
local at = 1
for n, key in ipairs(KEYS) do
  local version, keep, last = ARGV[at], ARGV[at + 1], at + 2 + ARGV[at + 2]
  local known = redis.pcall('HGET', key, 'version')
  if type(known) == 'table' then
    verdicts[n] = known.err
  elseif known and not tonumber(known) then
    verdicts[n] = 'ERR version is not a number'
  elseif known and tonumber(known) > tonumber(version) then
    verdicts[n] = 0
  else
    redis.call('HSET', key, 'version', version, unpack(ARGV, at + 3, last))
    if keep ~= '0' then
      redis.call('EXPIRE', key, keep)
    elseif known then
      redis.call('PERSIST', key)
    end
    verdicts[n] = 1
  end
  at = last + 1
end
return verdicts"""

# Set or remove entries `version value`, each unless the stored entry is newer. KEYS[1] hash;
# ARGV for each: name, version, value or ''
INDEX = """
for at = 1, #ARGV, 3 do
  local name, version, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local known = redis.call('HGET', KEYS[1], name)
  if not known or tonumber(string.match(known, '^%d+') or '0') <= tonumber(version) then
    if value ~= '' then
      redis.call('HSET', KEYS[1], name, version .. ' ' .. value)
    elseif known then
      redis.call('HDEL', KEYS[1], name)
    end
  end
end
return 1"""

# Overwrite a key unless it has changed since it was read. KEYS[1] hash; ARGV: field, the value that was read ('0': no
# field, or not a hash), seconds to keep it (0: forever), fields and values
REPLACE = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  if ARGV[2] ~= '0' then return 0 end
  redis.call('DEL', KEYS[1])
end
if (redis.call('HGET', KEYS[1], ARGV[1]) or '0') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1"""

# Write a hash where there is none: 1 written, 2 the same one is there, 0 another one is. KEYS[1] hash; ARGV: the field
# that tells versions of it apart, seconds to keep it (0: forever), fields and values
RESTORE = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end
  local known = redis.call('HGET', KEYS[1], ARGV[1])
  for at = 3, #ARGV, 2 do
    if ARGV[at] == ARGV[1] then return ARGV[at + 1] == known and 2 or 0 end
  end
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
if ARGV[2] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1"""

# Delete a key that has not changed since it was read. KEYS[1] key; ARGV: field, its value ('': the key is no hash)
DELETE_UNCHANGED = """
local hash = redis.call('TYPE', KEYS[1]).ok == 'hash'
if hash ~= (ARGV[2] ~= '') then return 0 end
if hash and (redis.call('HGET', KEYS[1], ARGV[1]) or '0') ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])"""

# Delete a key of the wrong type. KEYS[1] key; ARGV[1]: the right type
DELETE_WRONG_TYPE = """
if redis.call('TYPE', KEYS[1]).ok == ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])"""

# Set fields of each record if its guard field has a value and its stored time is not later: 1 set, else 0; a damaged
# record is skipped. KEYS: records; ARGV for each: guard field, value, how many names and values follow, the name and
# value of the time, then further ones
TOUCH = """
local verdicts = {}
local at = 1
for n, key in ipairs(KEYS) do
  local last = at + 2 + ARGV[at + 2]
  local known = redis.pcall('HMGET', key, ARGV[at], ARGV[at + 3])
  verdicts[n] = 0
  if not known.err and known[1] == ARGV[at + 1] and not (known[2] and known[2] > ARGV[at + 4]) then
    redis.call('HSET', key, unpack(ARGV, at + 3, last))
    verdicts[n] = 1
  end
  at = last + 1
end
return verdicts"""
