-- Renews a replica's lease and takes over runs that nobody holds: KEYS the replica's lease, index of the
-- unfinished (scored by replica), handed-over results (likewise), the store's epoch, replicas' clocks.
-- ARGV: replica, lease in milliseconds, most runs to take over, the replica's clock in milliseconds, an
-- epoch in case there is none, most handed-over results to tell of, 1 to tell of all runs of the replica.
--
-- Answers the epoch, 1 when the lease was there before, runs that were taken over (id, fencing token, by
-- how much the clock is ahead, each), all runs of the replica (likewise, if asked), runs with results that
-- were handed over.
--
-- A Redis that is full goes on to renew: what needs no memory comes first, and what does may fail.
local lease, unfinished, handed, epochs, clocks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local mine, most = ARGV[1], tonumber(ARGV[3])
local had = redis.call('EXISTS', lease)
if had == 1 then
    redis.call('PEXPIRE', lease, ARGV[2])
else
    redis.call('SET', lease, '', 'PX', ARGV[2])
end
if redis.call('EXISTS', epochs) == 0 then
    redis.call('SET', epochs, ARGV[5])
end
-- How far this replica's clock is behind the store's: what it writes is read by others, whose clocks are not
-- behind as far.
local time = redis.call('TIME')
local behind = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - tonumber(ARGV[4])
redis.pcall('HSET', clocks, mine, string.format('%.0f', behind))
local claimed, from = {}, '-inf'
while #claimed < most * 3 do
    local next = redis.call('ZRANGEBYSCORE', unfinished, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #next == 0 then
        break
    end
    local replica = next[2]
    if replica ~= mine and redis.call('EXISTS', 'orchestrators:lease:' .. replica) == 0 then
        local theirs = tonumber(redis.call('HGET', clocks, replica) or behind)
        local room = most - #claimed / 3
        local runs = redis.call('ZRANGEBYSCORE', unfinished, replica, replica, 'LIMIT', 0, room)
        for _, id in ipairs(runs) do
            local task, fence = 'task:' .. id, 0
            if redis.call('TYPE', task).ok == 'hash' then
                -- One that is no number, or too large a one, is a run that cannot be read: its holder says so.
                fence = redis.pcall('HINCRBY', task, 'fence', 1)
                if type(fence) ~= 'number' then
                    redis.call('HSET', task, 'fence', 1)
                    fence = 1
                end
            end
            redis.call('ZADD', unfinished, mine, id)
            claimed[#claimed + 1] = id
            claimed[#claimed + 1] = fence
            claimed[#claimed + 1] = string.format('%.0f', theirs - behind)
        end
        if #runs < room then
            redis.call('HDEL', clocks, replica)
            -- Lies in the runs, and is read with them.
            redis.call('ZREMRANGEBYSCORE', handed, replica, replica)
        end
    end
    from = '(' .. replica
end
local told, seen = {}, {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', handed, mine, mine, 'LIMIT', 0, ARGV[6])) do
    local id = string.match(member, '^[^/]*')
    if redis.call('ZSCORE', unfinished, id) then
        if not seen[id] then
            seen[id] = true
            told[#told + 1] = id
        end
    else
        redis.call('ZREM', handed, member)
    end
end
local all = {}
if ARGV[7] == '1' then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', unfinished, mine, mine)) do
        local task, fence = 'task:' .. id, 0
        if redis.call('TYPE', task).ok == 'hash' then
            fence = tonumber(redis.call('HGET', task, 'fence') or 0) or 0
        end
        all[#all + 1] = id
        all[#all + 1] = fence
        all[#all + 1] = '0'
    end
end
return {redis.call('GET', epochs), had, claimed, all, told}
