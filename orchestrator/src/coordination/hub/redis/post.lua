-- Puts a letter into the mailbox of each receiver, or into none. KEYS: the sender's mailbox, what it sent, joined.
-- ARGV: sender, connection, id of the letter, receiver ('' for all others), body, most letters, most bytes,
-- ids that are remembered.
-- Answers: what became of it, a number of receivers, letters in the fullest mailbox, those whose mailbox is full.
local own, sent, joined = KEYS[1], KEYS[2], KEYS[3]
local sender, id, to, body = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local most, most_bytes, remembered = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local holds = redis.call('HGET', own, 'connection')
if holds ~= ARGV[2] then
    return {holds and 'replaced' or 'gone', 0, 0, {}}
end
if redis.call('ZSCORE', sent, id) then
    return {'repeated', 0, 0, {}}
end
local receivers = {to}
if to == '' then
    receivers = {}
    local time = redis.call('TIME')
    redis.call('ZREMRANGEBYSCORE', joined, '-inf', time[1] * 1000 + math.floor(time[2] / 1000))
    for _, agent in ipairs(redis.call('ZRANGE', joined, 0, -1)) do
        if agent ~= sender and redis.call('EXISTS', '{agents}:mailbox:' .. agent) == 1 then
            receivers[#receivers + 1] = agent
        end
    end
elseif redis.call('EXISTS', '{agents}:mailbox:' .. to) == 0 then
    return {'no_mailbox', 0, 0, {}}
end
local full = {}
for _, agent in ipairs(receivers) do
    local bytes = tonumber(redis.call('HGET', '{agents}:mailbox:' .. agent, 'bytes'))
    local depth = redis.call('XLEN', '{agents}:letters:' .. agent)
    if depth >= most or bytes + #body > most_bytes then
        full[#full + 1] = agent
    end
end
if #full > 0 then
    return {'full', 0, 0, full}
end
-- Another process than that which gave the mailbox its last number may not know of the latest ones: a server that took
-- over from one that died, or came back without its last second. None of them is given again, lest a receiver that has
-- one takes the new letter for it.
local info = redis.pcall('INFO', 'server')
local process = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local deepest = 0
for _, agent in ipairs(receivers) do
    local mailbox, letters = '{agents}:mailbox:' .. agent, '{agents}:letters:' .. agent
    if process ~= '' and redis.call('HGET', mailbox, 'process') ~= process then
        local last, time = tonumber(redis.call('HGET', mailbox, 'last')), redis.call('TIME')
        if redis.call('HEXISTS', mailbox, 'process') == 1 then
            last = math.max(last, time[1] * 1000000 + time[2])
        end
        redis.call('HSET', mailbox, 'process', process, 'last', string.format('%.0f', last))
    end
    local number = redis.call('HINCRBY', mailbox, 'last', 1)
    redis.call('XADD', letters, string.format('%d-0', number), 'b', body)
    redis.call('HINCRBY', mailbox, 'bytes', #body)
    redis.call('PEXPIRE', letters, redis.call('PTTL', mailbox))
    deepest = math.max(deepest, redis.call('XLEN', letters))
    redis.call('PUBLISH', '{agents}:wake', agent)
end
redis.call('ZADD', sent, redis.call('HINCRBY', own, 'sends', 1), id)
redis.call('ZREMRANGEBYRANK', sent, 0, -remembered - 1)
redis.call('PEXPIRE', sent, redis.call('PTTL', own))
return {'stored', #receivers, deepest, {}}
