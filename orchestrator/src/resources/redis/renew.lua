-- ARGV[6]: life of the leases; then for each: id, holder, generation, 1 when it is held, 0 when it waits.
-- Answers those that were granted (id, generation, token, each), those that are gone, those that are somebody else's.
local granted, gone, superseded = {}, {}, {}
local ttl = tonumber(ARGV[6])

local function same(record, place)
    return record.holder == ARGV[place + 1] and record.generation == tonumber(ARGV[place + 2])
end

-- An emptied store that has settled, or one that was away, has nobody who sets it going.
local names = {}
for name in pairs(capacity) do
    names[#names + 1] = name
end
serve(names)
for place = 7, #ARGV, 4 do
    local id, held = ARGV[place], ARGV[place + 3] == '1'
    local lease = read(LEASES, id)
    local ask = not lease and read(ASKS, id)
    if lease and same(lease, place) then
        redis.call('ZADD', UNTIL, whole(now + (held and ttl or lease.ttl)), id)
        if not held then
            granted[#granted + 1] = id
            granted[#granted + 1] = whole(lease.generation)
            granted[#granted + 1] = lease.token
        end
    elseif ask and same(ask, place) and not held then
        redis.call('ZADD', ASKED, whole(now + life), id)
    elseif lease or (ask and not same(ask, place)) then
        superseded[#superseded + 1] = id
    else
        gone[#gone + 1] = id
    end
end
return {granted, gone, superseded}
