-- Says that a connection lives, or is over. KEYS: mailbox, letters, sent, present, joined.
-- ARGV: agent, connection, milliseconds of a presence (0: it is over), milliseconds of a mailbox.
local mailbox, present, joined = KEYS[1], KEYS[4], KEYS[5]
local agent, presence, life = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local holds = redis.call('HGET', mailbox, 'connection')
if holds ~= ARGV[2] then
    return holds and 'replaced' or 'gone'
end
if presence == 0 then
    redis.call('ZREM', present, agent)
    redis.call('PUBLISH', '{agents}:wake', '')
    return 'held'
end
for place = 1, 3 do
    redis.call('PEXPIRE', KEYS[place], life)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', present, now + presence, agent)
redis.call('ZADD', joined, now + life, agent)
return 'held'
