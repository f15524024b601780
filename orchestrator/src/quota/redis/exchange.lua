-- One exchange of a gateway: KEYS the gateways, then one bucket for each entry.
-- ARGV: the gateway, how long it counts (microseconds), most gateways, most debt (microseconds), the time
-- after which nobody waits for this any more (microseconds since 1970); then of each entry what it costs and
-- how long ago it began (microseconds).
--
-- Answers the time, the number of gateways, and the debt of each bucket (microseconds); the time alone when
-- nobody waits any more: then nothing was counted, and the caller may tell again.
--
-- Numbers are doubles here: microseconds since 1970 have 51 bits, so they are exact; '%.0f' writes all of
-- their digits. A key that holds something else counts as absent.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local gateway, life, most_gateways = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most_debt, not_after = tonumber(ARGV[4]), tonumber(ARGV[5])
if now > not_after then
    return {now}
end

local function whole(number)
    return string.format('%.0f', number)
end

-- Gateways, by the time until which they count.
local gateways = KEYS[1]
if redis.call('TYPE', gateways).ok ~= 'zset' then
    redis.call('DEL', gateways)
end
redis.call('ZREMRANGEBYSCORE', gateways, '-inf', whole(now))
-- Without a name it is the orchestrator itself.
if gateway ~= '' then
    redis.call('ZADD', gateways, whole(now + life), gateway)
    redis.call('ZREMRANGEBYRANK', gateways, 0, -1 - most_gateways)
    local last = redis.call('ZRANGE', gateways, -1, -1, 'WITHSCORES')
    redis.call('PEXPIRE', gateways, whole(math.ceil((tonumber(last[2]) - now) / 1000)))
end

local answer = {now, redis.call('ZCARD', gateways)}
for entry = 2, #KEYS do
    local bucket = KEYS[entry]
    local cost, ago = tonumber(ARGV[2 * entry + 2]), tonumber(ARGV[2 * entry + 3])
    local full = tonumber(redis.pcall('GET', bucket))
    -- Not a number (nan) is neither more nor less than anything.
    if not full or not (full > now - ago) then
        full = now - ago
    end
    full = math.min(full + cost, now + most_debt)
    if cost > 0 then
        -- As long as somebody may tell of what passed before it was full.
        local idle = math.ceil((full + life - now) / 1000)
        redis.call('SET', bucket, whole(full), 'PX', whole(math.max(idle, 1)))
    end
    answer[entry + 1] = math.max(full - now, 0)
end
return answer
