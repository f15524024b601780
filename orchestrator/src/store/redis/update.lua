-- Writes one transition of a run: KEYS task hash, index of the unfinished, index of all, handed-over
-- results, log, count of what was ever logged, ended runs whose submitters wait.
-- ARGV: id, life of an ended run in seconds ('' when it goes on), upper end of the ids that have expired,
-- when it ended ('' likewise), fencing token, version with this change made, number of steps whose
-- handed-over results are settled, what happened ('' for nothing), most changes in the log, these steps; then
-- fields and values of the hash.
--
-- Answers 0 written, 1 gone or behind, 2 ended before and otherwise, 3 no run at that key, 4 another
-- replica has it.
local task, unfinished, all, handed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, life, forgotten, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local fence, version, settled = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local log, count, replies, events, keep = KEYS[5], KEYS[6], KEYS[7], ARGV[8], ARGV[9]
local kind = redis.call('TYPE', task).ok
if kind ~= 'none' and kind ~= 'hash' then
    return 3
end
local known = redis.call('HMGET', task, 'plan', 'finished_at', 'fence', 'version', 'key', 'owner', 'reply')
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
local theirs, there = tonumber(known[3]) or 0, tonumber(known[4]) or 0
if theirs > fence then
    return 4
end
if theirs == fence and there == version then
    return 0
end
if theirs < fence or there ~= version - 1 then
    return 1
end
-- First, since it may be refused.
if events ~= '' then
    local n = redis.call('INCR', count)
    redis.call('XADD', log, 'MAXLEN', '~', keep, '*', 'n', n, 'owner', known[6] or '', 'events', events)
end
redis.call('HSET', task, unpack(ARGV, 10 + settled))
for place = 10, 9 + settled do
    redis.call('HDEL', task, 'handed:' .. ARGV[place])
    redis.call('ZREM', handed, id .. '/' .. ARGV[place])
end
if life ~= '' then
    redis.call('EXPIRE', task, life)
    redis.call('ZREM', unfinished, id)
    if known[7] then
        redis.call('ZADD', replies, 0, id)
    end
    -- Two kinds of ids, each in the order of its times: `collab_` sorts before `task_`.
    redis.call('ZREMRANGEBYLEX', all, '-', (string.gsub(forgotten, '^%(task_', '(collab_')))
    redis.call('ZREMRANGEBYLEX', all, '[task_', forgotten)
    if known[5] then
        redis.call('EXPIRE', 'tasks:key:' .. cjson.decode(known[5]).name, life)
    end
end
return 0
