-- Writes one transition of a run: KEYS task hash, index of the unfinished, index of all.
-- ARGV: id, life of an ended run in seconds ('' when it goes on), upper end of the ids that have expired,
-- when it ended ('' likewise); then fields and values of the hash.
--
-- Answers 0 written, 1 gone, 2 ended before and otherwise, 3 no run at that key.
local task, unfinished, all = KEYS[1], KEYS[2], KEYS[3]
local id, life, forgotten, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local kind = redis.call('TYPE', task).ok
if kind ~= 'none' and kind ~= 'hash' then
    return 3
end
local known = redis.call('HMGET', task, 'plan', 'finished_at')
if not known[1] then
    redis.call('ZREM', unfinished, id)
    redis.call('ZREM', all, id)
    return 1
end
if known[2] then
    if known[2] == at then
        return 0
    end
    return 2
end
redis.call('HSET', task, unpack(ARGV, 5))
if life ~= '' then
    redis.call('EXPIRE', task, life)
    redis.call('ZREM', unfinished, id)
    redis.call('ZREMRANGEBYLEX', all, '-', forgotten)
end
return 0
