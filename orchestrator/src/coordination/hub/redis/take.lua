-- Makes a connection the agent's one. KEYS: mailbox, letters, sent, present, joined.
-- ARGV: agent, connection, name of a mailbox that is made, name and letter of the agent's cursor ('' without
-- one), milliseconds of a presence, milliseconds of a mailbox.
-- Answers: the mailbox's name, the last letter that has left it, whether the cursor was taken, letters that wait.
local mailbox, letters, sent, present, joined = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local agent, connection, new, name, upto = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local presence, life = tonumber(ARGV[6]), tonumber(ARGV[7])
local is = redis.call('HGET', mailbox, 'name')
if not is then
    redis.call('DEL', letters, sent)
    redis.call('HSET', mailbox, 'name', new, 'last', 0, 'bytes', 0, 'sends', 0)
    is = new
end
redis.call('HSET', mailbox, 'connection', connection)
local last = tonumber(redis.call('HGET', mailbox, 'last'))
local resumed = 0
if name == is and upto <= last then
    resumed = 1
    local freed = 0
    for _, letter in ipairs(redis.call('XRANGE', letters, '-', ARGV[5] .. '-0')) do
        freed = freed + #letter[2][2]
        redis.call('XDEL', letters, letter[1])
    end
    -- Minus nothing would be `-0`, which is no integer to Redis.
    if freed > 0 then
        redis.call('HINCRBY', mailbox, 'bytes', -freed)
    end
end
local first = redis.call('XRANGE', letters, '-', '+', 'COUNT', 1)[1]
if first then
    last = tonumber(string.match(first[1], '^%d+')) - 1
end
for _, key in ipairs({mailbox, letters, sent}) do
    redis.call('PEXPIRE', key, life)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', present, now + presence, agent)
redis.call('ZADD', joined, now + life, agent)
redis.call('PUBLISH', '{agents}:wake', agent)
redis.call('PUBLISH', '{agents}:wake', '')
return {is, last, resumed, redis.call('XLEN', letters)}
