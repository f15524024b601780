-- ARGV[6]: most holders to tell of.
-- Answers for each resource its name, how much is held, how many wait; of holders the id, the lease, what is left of it;
-- how many wait, how long the oldest has (-1: nobody), how many leases expired.
local resources, holders = {}, {}
for name in pairs(capacity) do
    resources[#resources + 1] = name
    resources[#resources + 1] = redis.call('HGET', USED, name) or '0'
    resources[#resources + 1] = whole(redis.call('ZCARD', queue(name)))
end
local first = redis.call('ZRANGE', UNTIL, 0, tonumber(ARGV[6]) - 1, 'WITHSCORES')
for place = 1, #first, 2 do
    local lease = redis.call('HGET', LEASES, first[place])
    if lease then
        holders[#holders + 1] = first[place]
        holders[#holders + 1] = lease
        holders[#holders + 1] = whole(tonumber(first[place + 1]) - now)
    end
end
local oldest = redis.call('ZRANGE', SINCE, 0, 0, 'WITHSCORES')[2]
local wait = oldest and math.max(now - tonumber(oldest), 0) or -1
return {resources, holders, redis.call('HLEN', ASKS), wait, tonumber(redis.call('HGET', STATE, 'expired') or 0)}
