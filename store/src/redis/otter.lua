#!lua name=otter_VERSION

-- What Otter does inside of Redis. Each operation works on keys of one hash slot and is atomic; a
-- call carries the operations of many queries, and each is answered by itself.
--
--   FCALL otter_read|otter_write <keys> key.. now word <operation> <arguments> <times> argument.. ..
--
-- The reply is MessagePack: one array per operation, in order. One whose first element is '!' says
-- that the operation failed, which only values that are not ours make it do: what it wrote before
-- stays, and whoever asked is told that nobody can answer.
--
-- VERSION stands for the first digits of this text's SHA-256, so that servers of two releases can
-- work on one Redis. Keys, fields and expiry are described in docs/redis.md.

-- Milliseconds since 1970: Redis' own clock, unless the call brings a time (tests do).
local now

-- What no other call brings.
local word

-- Fields of a device that a check-in needs, in the order in which they are answered.
local FIELDS = {
  'owner', 'mac', 'alias', 'platform', 'version', 'env', 'auto', 'told', 'digest', 'seen',
  'offered',
}

-- Numbers beyond 1e14 would lose digits in Lua's own way of writing them.
local function text(number)
  return string.format('%.0f', number)
end

-- Names the state of something anew, so that who remembers an earlier one knows. A count would not
-- do: a failover may forget a change, and the next one would have its number, so that who knew the
-- first would not ask for the second. So each call brings a word that no other call has.
local function next_state(state)
  local last = tonumber(string.match(state or '', '^%d+') or 0)
  return text(math.max(last + 1, now)) .. '-' .. word
end

local function changed(key)
  redis.call('HSET', key, 'state', next_state(redis.call('HGET', key, 'state')))
end

-- A token, kept as one field of its device's hash of tokens.
local TOKEN = '^(%S+) (%d+) (%d+) (%d+) ([01])([01])([01])$'

local function unpack_token(value)
  local release, deadline, used, transfer, started, forced, replaced = string.match(value, TOKEN)
  return {
    release = release,
    deadline = tonumber(deadline),
    used = tonumber(used),
    transfer = tonumber(transfer),
    started = started == '1',
    forced = forced == '1',
    replaced = replaced == '1',
  }
end

local function pack_token(token)
  local function bit(flag) return flag and '1' or '0' end
  return table.concat({
    token.release, text(token.deadline), text(token.used), text(token.transfer),
    bit(token.started) .. bit(token.forced) .. bit(token.replaced),
  }, ' ')
end

local function find_token(key, hash)
  local value = redis.call('HGET', key, hash)
  return value and unpack_token(value)
end

-- After this nobody can even claim it.
local function end_of(token)
  return token.deadline + token.transfer
end

local function lives(token)
  return not token.replaced and now < token.deadline
end

-- A device that begins one transfer after another keeps at most this many claims besides its
-- newest token; it can use only one of them.
local REPLACED_MAX = 8

-- Makes way for a new token of the same release. What nobody tried yet goes; what may have a
-- transfer under way can still be claimed, and the oldest of too many such goes. Returns when the
-- last of those that stay ends, and how many were replaced and how many had ended.
local function replace_tokens(key, release)
  local replaced, last, replaced_count, ended_count = {}, 0, 0, 0
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local hash, token = all[i], unpack_token(all[i + 1])
    local over = end_of(token)
    local keep = true
    if now >= over then
      ended_count = ended_count + 1
      keep = false
    elseif token.replaced then
      replaced[#replaced + 1] = { over, hash }
    elseif token.release == release then
      replaced_count = replaced_count + 1
      if token.started then
        token.replaced = true
        redis.call('HSET', key, hash, pack_token(token))
        replaced[#replaced + 1] = { over, hash }
      else
        keep = false
      end
    end
    if not keep then
      redis.call('HDEL', key, hash)
    else
      last = math.max(last, over)
    end
  end
  table.sort(replaced, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  for i = 1, #replaced - REPLACED_MAX do
    redis.call('HDEL', key, replaced[i][2])
  end
  return last, replaced_count, ended_count
end

-- Keeps a token from the six arguments that begin at `a`: hash, release, milliseconds unused, used
-- and for the transfer, forced. The key goes when its last token has ended.
local function issue(key, args, a)
  local token = {
    release = args[a + 1],
    deadline = now + tonumber(args[a + 2]),
    used = tonumber(args[a + 3]),
    transfer = tonumber(args[a + 4]),
    started = false,
    forced = args[a + 5] == '1',
    replaced = false,
  }
  local last, replaced, ended = replace_tokens(key, token.release)
  redis.call('HSET', key, args[a], pack_token(token))
  redis.call('PEXPIRE', key, text(math.max(last, end_of(token)) - now))
  return { text(token.deadline), replaced, ended }
end

-- A text that may be absent is sent as '=' and the text, or as nothing.
local function optional(argument)
  return argument ~= '' and string.sub(argument, 2) or nil
end

local reads, writes = {}, {}

-- device (dev) state: the state and the fields of a device, unless the caller knows that state.
reads.device = { 1, function(keys, k, args, a)
  local state = redis.call('HGET', keys[k + 1], 'state')
  if state and state == args[a] then return { 'same' } end
  return redis.call('HMGET', keys[k + 1], 'state', unpack(FIELDS))
end }

-- row (dev, facts, push): all that operators see of a device.
reads.row = { 3, function(keys, k)
  local row = redis.call('HMGET', keys[k + 1], unpack(FIELDS))
  row[#row + 1] = redis.call('HGET', keys[k + 1], 'registered')
  row[#row + 1] = redis.call('GET', keys[k + 2])
  row[#row + 1] = redis.call('GET', keys[k + 3])
  return row
end }

-- owner (ak, own, rels) tag: what is known of an owner, unless it is what the caller knows. The
-- tag changes with every change.
reads.owner = { 3, function(keys, k, args, a)
  local ak = redis.call('GET', keys[k + 1])
  local own = redis.call('HMGET', keys[k + 2], 'created', 'state')
  local tag = (own[1] or '-') .. ' ' .. (own[2] or '0') .. ' ' .. (ak and redis.sha1hex(ak) or '-')
  if tag == args[a] then return { 'same' } end
  local reply = { 'new', tag, own[1] or false, ak or false }
  for _, value in ipairs(redis.call('HGETALL', keys[k + 3])) do reply[#reply + 1] = value end
  return reply
end }

-- registered (dev): whose a device is, its mac, and when it was registered.
reads.registered = { 1, function(keys, k)
  return redis.call('HMGET', keys[k + 1], 'owner', 'mac', 'registered')
end }

-- score (key) member: its score in an index, or nothing.
reads.score = { 1, function(keys, k, args, a)
  local score = redis.call('ZSCORE', keys[k + 1], args[a])
  return score and { score } or {}
end }

-- text (key): a string, such as a pointer.
reads.text = { 1, function(keys, k)
  return { redis.call('GET', keys[k + 1]) }
end }

-- page (devs) after, limit: ids of devices in their order.
reads.page = { 1, function(keys, k, args, a)
  local from = args[a] == '' and '-' or '(' .. args[a]
  return redis.call('ZRANGEBYLEX', keys[k + 1], from, '+', 'LIMIT', 0, args[a + 1])
end }

-- count (key): how many members an index has.
reads.count = { 1, function(keys, k)
  return { redis.call('ZCARD', keys[k + 1]) }
end }

-- members (key): all members of an index with their scores, by score.
reads.members = { 1, function(keys, k)
  return redis.call('ZRANGE', keys[k + 1], 0, -1, 'WITHSCORES')
end }

-- Of those that share a mac, so many are looked at.
local HOLDERS_MAX = 8

-- holders (mac): the devices that have a mac, in the order in which they took it.
reads.holders = { 1, function(keys, k)
  return redis.call('ZRANGE', keys[k + 1], 0, HOLDERS_MAX - 1)
end }

-- token (dev, tok) hash: device and token, or nothing. The last field says whether it lives.
reads.token = { 2, function(keys, k, args, a)
  local token = find_token(keys[k + 2], args[a])
  if not token or now >= end_of(token) then return {} end
  local device = redis.call('HMGET', keys[k + 1], 'owner', 'platform')
  return {
    device[1], device[2], token.release, token.started and 1 or 0, token.forced and 1 or 0,
    lives(token) and 1 or 0,
  }
end }

-- tokens (tok): all tokens of a device.
reads.tokens = { 1, function(keys, k)
  local reply = {}
  local all = redis.call('HGETALL', keys[k + 1])
  for i = 1, #all, 2 do
    if now < end_of(unpack_token(all[i + 1])) then
      reply[#reply + 1] = all[i]
      reply[#reply + 1] = all[i + 1]
    end
  end
  return reply
end }

-- start (tok) hash, release: the first attempt begins, and binds the release.
writes.start = { 1, function(keys, k, args, a)
  local token = find_token(keys[k + 1], args[a])
  if not token or not lives(token) then return {} end
  if token.release ~= '-' and token.release ~= args[a + 1] then return {} end
  local first = not token.started
  if first then
    token.started = true
    token.release = args[a + 1]
    token.deadline = math.min(token.deadline, now + token.used)
    redis.call('HSET', keys[k + 1], args[a], pack_token(token))
  end
  return { first and 1 or 0, token.forced and 1 or 0 }
end }

-- claim (tok) hash: removes the token; 1 to one caller ever.
writes.claim = { 1, function(keys, k, args, a)
  local token = find_token(keys[k + 1], args[a])
  if not token or now >= end_of(token) then return { 0 } end
  return { redis.call('HDEL', keys[k + 1], args[a]) }
end }

-- revoke (tok) hash or nothing: removes one token or all; says how many there were.
writes.revoke = { 1, function(keys, k, args, a, n)
  local all = redis.call('HGETALL', keys[k + 1])
  local revoked = 0
  for i = 1, #all, 2 do
    if (n == 0 or all[i] == args[a]) and now < end_of(unpack_token(all[i + 1])) then
      revoked = revoked + redis.call('HDEL', keys[k + 1], all[i])
    end
  end
  return { revoked }
end }

-- issue (dev, tok) owner, token..: a token for a device that is registered with this owner.
writes.issue = { 2, function(keys, k, args, a)
  if redis.call('HGET', keys[k + 1], 'owner') ~= args[a] then return { 'absent' } end
  local reply = issue(keys[k + 2], args, a + 1)
  table.insert(reply, 1, 'issued')
  return reply
end }

-- Adds a field with its value to those that are to be set.
local function put(fields, field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end

-- What a check-in said, from the arguments that begin at `a` (mac, version, platform, env, digest,
-- told): fields to set, and fields to remove.
local function said(set, args, a)
  local gone = {}
  for i, field in ipairs({ 'mac', 'version', 'platform', 'env' }) do
    local value = optional(args[a + i - 1])
    if value then
      put(set, field, value)
    elseif field == 'mac' or field == 'env' then
      gone[#gone + 1] = field
    end
  end
  put(set, 'digest', args[a + 4])
  put(set, 'told', args[a + 5])
  put(set, 'seen', text(math.floor(now / 1000)))
  return gone
end

-- record (dev, facts, tok) owner, prepared, named, invented, offered, grant, check-in, ..: keeps a
-- check-in. Unless `prepared`, a new device or a new mac is answered with 'again' and the time of
-- registration, because an index in another slot has to be written first. With a check-in its
-- seven arguments follow (mac, version, platform, env, digest, told, facts), with a grant the six
-- of the token.
writes.record = { 3, function(keys, k, args, a)
  local key = keys[k + 1]
  local known = redis.call('HMGET', key, 'owner', 'alias', 'auto', 'mac', 'registered', 'state')
  if known[1] and known[1] ~= args[a] then return { 'foreign' } end
  local has_grant, has_check_in = args[a + 5] == '1', args[a + 6] == '1'
  local mac = has_check_in and optional(args[a + 7])
  if args[a + 1] == '0' and (not known[1] or mac and mac ~= known[4]) then
    return { 'again', known[5] or '' }
  end
  local alias, facts, gone = known[2], nil, {}
  local set = { 'state', next_state(known[6]) }
  if not known[1] then
    alias, facts = optional(args[a + 2]) or args[a + 3], '{}'
    local seconds = text(math.floor(now / 1000))
    for field, value in pairs({
      owner = args[a], alias = alias, registered = seconds, seen = seconds,
      digest = '0', auto = '0', told = '0',
    }) do put(set, field, value) end
  end
  local rest = a + 7
  if has_check_in then
    gone, facts = said(set, args, rest), args[rest + 6]
    rest = rest + 7
  end
  if args[a + 4] ~= '' then put(set, 'offered', args[a + 4]) end
  if facts then redis.call('SET', keys[k + 2], facts) end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  redis.call('HSET', key, unpack(set))
  local old_mac = has_check_in and known[4] and known[4] ~= mac and known[4]
  local reply = { 'kept', alias, known[3] or '0', old_mac or '' }
  if has_grant then
    for _, value in ipairs(issue(keys[k + 3], args, rest)) do reply[#reply + 1] = value end
  end
  return reply
end }

-- push (dev, push) token: keeps the push token of a device that is registered.
writes.push = { 2, function(keys, k, args, a)
  if redis.call('EXISTS', keys[k + 1]) == 1 then redis.call('SET', keys[k + 2], args[a]) end
  return {}
end }

-- change (dev) auto or nothing, alias or nothing: what an operator changes. Somebody looked at the
-- device: what held it back is over.
writes.change = { 1, function(keys, k, args, a)
  if redis.call('EXISTS', keys[k + 1]) == 0 then return { 0 } end
  if args[a] ~= '' then
    redis.call('HSET', keys[k + 1], 'auto', args[a])
    redis.call('HDEL', keys[k + 1], 'offered')
  end
  local alias = optional(args[a + 1])
  if alias then redis.call('HSET', keys[k + 1], 'alias', alias) end
  changed(keys[k + 1])
  return { 1 }
end }

-- restore (dev, facts, push) facts, push, field, value..: a device as another store had it.
writes.restore = { 3, function(keys, k, args, a, n)
  redis.call('DEL', keys[k + 1], keys[k + 3])
  redis.call('HSET', keys[k + 1], unpack(args, a + 2, a + n - 1))
  changed(keys[k + 1])
  redis.call('SET', keys[k + 2], args[a])
  local push = optional(args[a + 1])
  if push then redis.call('SET', keys[k + 3], push) end
  return {}
end }

-- restore_token (tok) hash, record: a token as another store had it.
writes.restore_token = { 1, function(keys, k, args, a)
  local token = unpack_token(args[a + 1])
  if now >= end_of(token) then return {} end
  redis.call('HSET', keys[k + 1], args[a], args[a + 1])
  local left = math.max(end_of(token) - now, redis.call('PTTL', keys[k + 1]))
  redis.call('PEXPIRE', keys[k + 1], text(left))
  return {}
end }

-- restore_pointer (key) value, milliseconds since 1970: a pointer that ends then.
writes.restore_pointer = { 1, function(keys, k, args, a)
  local left = tonumber(args[a + 1]) - now
  if left > 0 then redis.call('SET', keys[k + 1], args[a], 'PX', text(left)) end
  return {}
end }

-- point (key) value, expected, lives: sets a pointer that is absent, or still what was expected;
-- says what it holds afterwards. Without `lives` (milliseconds) it never expires.
writes.point = { 1, function(keys, k, args, a)
  local value = redis.call('GET', keys[k + 1])
  if value and value ~= args[a + 1] then return { value } end
  if args[a + 2] == '' then
    redis.call('SET', keys[k + 1], args[a])
  else
    redis.call('SET', keys[k + 1], args[a], 'PX', args[a + 2])
  end
  return { args[a] }
end }

-- aim (key) value: sets a pointer, whatever it held.
writes.aim = { 1, function(keys, k, args, a)
  if redis.call('GET', keys[k + 1]) ~= args[a] then redis.call('SET', keys[k + 1], args[a]) end
  return {}
end }

-- remove (key): removes a key.
writes.remove = { 1, function(keys, k)
  redis.call('DEL', keys[k + 1])
  return {}
end }

-- lead (mac) device: takes a mac that no device has; says which have it afterwards.
writes.lead = { 1, function(keys, k, args, a)
  if redis.call('ZCARD', keys[k + 1]) == 0 then
    redis.call('ZADD', keys[k + 1], text(math.floor(now / 1000)), args[a])
  end
  return redis.call('ZRANGE', keys[k + 1], 0, HOLDERS_MAX - 1)
end }

-- index (key) member: adds to an index in the order of its members.
writes.index = { 1, function(keys, k, args, a)
  if not redis.call('ZSCORE', keys[k + 1], args[a]) then
    redis.call('ZADD', keys[k + 1], 0, args[a])
  end
  return {}
end }

-- unindex (key) member: removes from an index.
writes.unindex = { 1, function(keys, k, args, a)
  redis.call('ZREM', keys[k + 1], args[a])
  return {}
end }

-- append (key) member, seconds or nothing: adds to an index in the order of time, now where none is
-- given, and among equals behind those that are there (up to a million).
writes.append = { 1, function(keys, k, args, a)
  if not redis.call('ZSCORE', keys[k + 1], args[a]) then
    local seconds = args[a + 1] ~= '' and args[a + 1] or text(math.floor(now / 1000))
    local place = redis.call('ZCARD', keys[k + 1])
    redis.call('ZADD', keys[k + 1], seconds .. string.format('.%06d', place), args[a])
  end
  return {}
end }

-- found (own) created or nothing: makes an owner; says whether there was none.
writes.found = { 1, function(keys, k, args, a)
  local created = args[a] ~= '' and args[a] or text(math.floor(now / 1000))
  return { redis.call('HSETNX', keys[k + 1], 'created', created), created }
end }

-- rekey (ak) expected, keys: exchanges the keys of an owner, if they still are what was read.
writes.rekey = { 1, function(keys, k, args, a)
  if redis.call('GET', keys[k + 1]) ~= (optional(args[a]) or false) then return { 0 } end
  redis.call('SET', keys[k + 1], args[a + 1])
  return { 1 }
end }

-- publish (own, rels) id, record: a release, in its place behind those before it.
writes.publish = { 2, function(keys, k, args, a)
  local place = redis.call('HINCRBY', keys[k + 1], 'releases', 1)
  local seconds = text(math.floor(now / 1000))
  redis.call('HSET', keys[k + 2], args[a], table.concat({ place, seconds, '0', args[a + 1] }, ' '))
  changed(keys[k + 1])
  return {}
end }

-- withdraw (own, rels) id: the time at which it was withdrawn, and whether that is now.
writes.withdraw = { 2, function(keys, k, args, a)
  local value = redis.call('HGET', keys[k + 2], args[a])
  if not value then return {} end
  local place, published, withdrawn, record = string.match(value, '^(%d+) (%d+) (%d+) (.*)$')
  if withdrawn ~= '0' then return { withdrawn, 0 } end
  local seconds = text(math.floor(now / 1000))
  redis.call('HSET', keys[k + 2], args[a], table.concat({ place, published, seconds, record }, ' '))
  changed(keys[k + 1])
  return { seconds, 1 }
end }

-- restore_release (own, rels) id, value, place: a release as another store had it.
writes.restore_release = { 2, function(keys, k, args, a)
  redis.call('HSET', keys[k + 2], args[a], args[a + 1])
  local places = tonumber(redis.call('HGET', keys[k + 1], 'releases') or 0)
  redis.call('HSET', keys[k + 1], 'releases', text(math.max(places, tonumber(args[a + 2]))))
  changed(keys[k + 1])
  return {}
end }

-- ticket_keys (ticketkeys) period, milliseconds of a period, secret, secret of the next period: the
-- keys of TLS session tickets held during that period, where it is missing with these. What is over
-- by Redis' clock goes; the clock of a server may differ from that by one period.
writes.ticket_keys = { 1, function(keys, k, args, a)
  local key, period, lasts = keys[k + 1], tonumber(args[a]), tonumber(args[a + 1])
  local present = math.floor(now / lasts)
  if math.abs(period - present) > 1 then return { 'apart', text(now) } end
  redis.call('HSETNX', key, text(period), args[a + 2])
  redis.call('HSETNX', key, text(period + 1), args[a + 3])
  redis.call('PEXPIRE', key, text(4 * lasts))
  local reply = { 'held' }
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local of = tonumber(all[i])
    if not of or math.abs(of - present) > 2 then
      redis.call('HDEL', key, all[i])
    elseif of >= period - 2 and of <= period + 1 then
      reply[#reply + 1] = all[i]
      reply[#reply + 1] = all[i + 1]
    end
  end
  return reply
end }

local function run(operations, keys, args)
  if args[1] == '' then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  else
    now = tonumber(args[1])
  end
  word = args[2]
  local replies, k, a = {}, 0, 3
  while a <= #args do
    local operation, n, times = operations[args[a]], tonumber(args[a + 1]), tonumber(args[a + 2])
    a = a + 3
    for _ = 1, times do
      local done, reply = pcall(operation[2], keys, k, args, a, n)
      if not done then reply = { '!', type(reply) == 'table' and reply.err or tostring(reply) } end
      replies[#replies + 1] = reply
      k, a = k + operation[1], a + n
    end
  end
  return cmsgpack.pack(replies)
end

redis.register_function{
  function_name = 'otter_read_VERSION',
  callback = function(keys, args) return run(reads, keys, args) end,
  flags = { 'no-writes' },
}
redis.register_function{
  function_name = 'otter_write_VERSION',
  callback = function(keys, args) return run(writes, keys, args) end,
}
