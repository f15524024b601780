-- What all scripts of the arbiter begin with; what it does is said in resources/mod.rs and, once more, in book.rs.
--
--   {resources}:leases   hash   id -> JSON {holder, generation, owner, needs, priority, token, since}
--   {resources}:until    zset   id by when its lease expires (milliseconds)
--   {resources}:asks     hash   id -> JSON of who waits
--   {resources}:asked    zset   id by when it is forgotten
--   {resources}:since    zset   id by when it began to wait
--   {resources}:queue:N  zset   id by its order, for each resource N
--   {resources}:used     hash   N -> how much is held
--   {resources}:state    hash   token: the latest; last: when a script ran; settled: until when nothing is granted; expired
--
-- ARGV[1] capacity as JSON, ARGV[2] life of what is not renewed, ARGV[3] how long an emptied store settles, ARGV[4] most
-- leases, ARGV[5] what one priority is worth; times in milliseconds.
local P = '{resources}:'
local LEASES, UNTIL, ASKS, ASKED, SINCE = P .. 'leases', P .. 'until', P .. 'asks', P .. 'asked', P .. 'since'
local USED, STATE = P .. 'used', P .. 'state'
local capacity, life = cjson.decode(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)
local asking, tokens = nil, {}

local function whole(number)
    return string.format('%.0f', number)
end

local function queue(name)
    return P .. 'queue:' .. name
end

-- Replicas renew many times within a life. Nobody having been here for so long was the store's absence, not theirs; a
-- clock that was set shows in the same way: what is held counts from now.
local state = redis.call('HMGET', STATE, 'last', 'settled', 'token')
local last, settled, token = tonumber(state[1]), tonumber(state[2] or 0), tonumber(state[3] or 0)
if not last then
    settled = now + tonumber(ARGV[3])
    redis.call('HSET', STATE, 'settled', whole(settled))
elseif now < last or now - last > life / 2 then
    local back = math.min(now - last, 0)
    for _, ids in ipairs({UNTIL, ASKED}) do
        local all = redis.call('ZRANGE', ids, 0, -1, 'WITHSCORES')
        for place = 1, #all, 2 do
            redis.call('ZADD', ids, whole(math.max(tonumber(all[place + 1]) + back, now + life)), all[place])
        end
    end
    if settled > now + tonumber(ARGV[3]) then
        settled = now
    end
    -- Who waits keeps its place before whoever asks from now on: a millisecond more, since `back` may be one too few.
    if back < 0 then
        local waits = {[SINCE] = back - 1}
        for name in pairs(capacity) do
            waits[queue(name)] = (back - 1) * 1000
        end
        for key, shift in pairs(waits) do
            local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
            for place = 1, #all, 2 do
                redis.call('ZADD', key, whole(tonumber(all[place + 1]) + shift), all[place])
            end
        end
    end
end
redis.call('HSET', STATE, 'last', whole(now))

local function next_token()
    token = math.max(token + 1, now_us)
    redis.call('HSET', STATE, 'token', whole(token))
    return whole(token)
end

local function read(key, id)
    local text = redis.call('HGET', key, id)
    return text and cjson.decode(text)
end

-- Takes who waits off the queues.
local function leave(id, ask)
    redis.call('HDEL', ASKS, id)
    redis.call('ZREM', ASKED, id)
    redis.call('ZREM', SINCE, id)
    for name in pairs(ask.needs) do
        redis.call('ZREM', queue(name), id)
    end
end

-- Takes back what is held.
local function free(id, lease)
    redis.call('HDEL', LEASES, id)
    redis.call('ZREM', UNTIL, id)
    for name, amount in pairs(lease.needs) do
        if tonumber(redis.call('HINCRBY', USED, name, whole(-amount))) <= 0 then
            redis.call('HDEL', USED, name)
        end
    end
end

-- Gives to who waits what it waits for.
local function grant(id, ask)
    leave(id, ask)
    for name, amount in pairs(ask.needs) do
        redis.call('HINCRBY', USED, name, whole(amount))
    end
    ask.token, ask.since = next_token(), now
    redis.call('HSET', LEASES, id, cjson.encode(ask))
    redis.call('ZADD', UNTIL, whole(now + ask.ttl), id)
    tokens[id] = ask.token
    if id ~= asking then
        redis.call('PUBLISH', 'resources:granted:' .. ask.owner, id .. ' ' .. whole(ask.generation) .. ' ' .. ask.token)
    end
end

local function fits(needs)
    for name, amount in pairs(needs) do
        if tonumber(redis.call('HGET', USED, name) or 0) + amount > (capacity[name] or 0) then
            return false
        end
    end
    return redis.call('HLEN', LEASES) < tonumber(ARGV[4])
end

-- Grants to those who are first in all of their queues and whose needs fit, beginning with the queues `names`.
local function serve(names)
    if now < settled then
        return
    end
    while #names > 0 do
        local name = table.remove(names)
        local id = redis.call('ZRANGE', queue(name), 0, 0)[1]
        local ask = id and read(ASKS, id)
        if ask then
            local first = true
            for other in pairs(ask.needs) do
                first = first and redis.call('ZRANGE', queue(other), 0, 0)[1] == id
            end
            if first and fits(ask.needs) then
                grant(id, ask)
                for other in pairs(ask.needs) do
                    names[#names + 1] = other
                end
            end
        elseif id then
            redis.call('ZREM', queue(name), id)
            names[#names + 1] = name
        end
    end
end

local function names_of(record, names)
    for name in pairs(record.needs) do
        names[#names + 1] = name
    end
    return names
end

-- What expired; the rest of very many with the next script.
local freed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', UNTIL, '-inf', whole(now), 'LIMIT', 0, 500)) do
    local lease = read(LEASES, id)
    redis.call('ZREM', UNTIL, id)
    if lease then
        free(id, lease)
        redis.call('HINCRBY', STATE, 'expired', 1)
        names_of(lease, freed)
    end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ASKED, '-inf', whole(now), 'LIMIT', 0, 500)) do
    local ask = read(ASKS, id)
    redis.call('ZREM', ASKED, id)
    if ask then
        leave(id, ask)
        names_of(ask, freed)
    end
end
serve(freed)
