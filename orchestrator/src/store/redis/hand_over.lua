-- Puts a result into its run and tells whoever runs it: KEYS task hash, index of the unfinished (scored by
-- replica), handed-over results (likewise). ARGV: id, step, result.
--
-- Answers 0 kept, 1 gone, 2 ended.
local task, unfinished, handed = KEYS[1], KEYS[2], KEYS[3]
local id, step, result = ARGV[1], ARGV[2], ARGV[3]
if redis.call('TYPE', task).ok ~= 'hash' then
    return 1
end
local known = redis.call('HMGET', task, 'plan', 'finished_at')
if not known[1] then
    return 1
end
if known[2] then
    return 2
end
redis.call('HSET', task, 'handed:' .. step, result)
local replica = redis.call('ZSCORE', unfinished, id)
if replica then
    redis.call('ZADD', handed, replica, id .. '/' .. step)
    redis.call('PUBLISH', 'orchestrators:handed:' .. replica, result)
end
return 0
