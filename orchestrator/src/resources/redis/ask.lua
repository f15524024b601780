-- ARGV[6..]: id, holder, generation, owner, needs as JSON, priority, life of the lease, how long it has waited, 1 when its
-- work goes on already, most who wait.
-- Answers what came of it and the token.
asking = ARGV[6]
local id, holder, generation = ARGV[6], ARGV[7], tonumber(ARGV[8])
local ttl, waited, running = tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[14] == '1'

local function theirs(record)
    return record.holder ~= holder or record.generation > generation
end

local lease = read(LEASES, id)
if lease then
    if theirs(lease) then
        return {'superseded', '0'}
    end
    if lease.generation < generation then
        lease.token = next_token()
    end
    lease.generation, lease.owner = generation, ARGV[9]
    redis.call('HSET', LEASES, id, cjson.encode(lease))
    redis.call('ZADD', UNTIL, whole(now + ttl), id)
    return {'granted', lease.token}
end
local ask = read(ASKS, id)
if ask then
    if theirs(ask) then
        return {'superseded', '0'}
    end
else
    ask = {holder = holder, needs = cjson.decode(ARGV[10])}
    -- In microseconds, which no two scripts share.
    local order = whole(now_us - (waited + tonumber(ARGV[11]) * tonumber(ARGV[5])) * 1000)
    for name in pairs(ask.needs) do
        redis.call('ZADD', queue(name), order, id)
    end
    redis.call('ZADD', SINCE, whole(now - waited), id)
end
ask.generation, ask.owner, ask.priority, ask.ttl = generation, ARGV[9], tonumber(ARGV[11]), ttl
redis.call('HSET', ASKS, id, cjson.encode(ask))
redis.call('ZADD', ASKED, whole(now + life), id)
if running then
    grant(id, ask)
else
    serve(names_of(ask, {}))
end
if tokens[id] then
    return {'granted', tokens[id]}
end
if redis.call('HLEN', ASKS) > tonumber(ARGV[15]) then
    leave(id, ask)
    return {'full', '0'}
end
return {'waiting', '0'}
