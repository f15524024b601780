-- Keeps a run: KEYS task hash, index of the unfinished, index of all, and of its owner if it has one.
-- ARGV: id, life of an ended run in seconds ('' for one that goes on), life of the owner's index in
-- seconds, upper end of the ids that have expired; then fields and values of the hash.
--
-- What goes on is not written over: a create that arrives late finds what came of it meanwhile. What has
-- ended, and what is no run at all, is written over by what its own process knows better.
local task, unfinished, all, owner = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, life, index_life, forgotten = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local kind = redis.call('TYPE', task).ok
local ends = life ~= ''
if kind == 'hash' and not ends and redis.call('HEXISTS', task, 'plan') == 1 then
    return 0
end
redis.call('DEL', task)
redis.call('HSET', task, unpack(ARGV, 5))
if ends then
    redis.call('EXPIRE', task, life)
    redis.call('ZREM', unfinished, id)
else
    redis.call('ZADD', unfinished, 0, id)
end
redis.call('ZADD', all, 0, id)
if owner then
    redis.call('ZADD', owner, 0, id)
    redis.call('ZREMRANGEBYLEX', owner, '-', forgotten)
    redis.call('EXPIRE', owner, index_life)
end
return 0
