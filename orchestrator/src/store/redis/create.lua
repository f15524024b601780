-- Keeps a run: KEYS task hash, index of the unfinished (scored by replica), index of all, index of its
-- owner ('' without one), its submission key ('' without one), log, count of what was ever logged, ended runs
-- whose submitters wait.
-- ARGV: id, life of an ended run in seconds ('' for one that goes on), life of the owner's index in
-- seconds, upper end of the ids that have expired, replica, fencing token, version, digest of the body
-- under the submission key ('' to give the key up), what happened ('' for nothing), most changes in the log,
-- whose the run is, 1 when its submitter waits for the end; then fields and values of the hash.
--
-- What goes on is not written over, unless it is older: a create that arrives late finds what came of the
-- run meanwhile. What has ended, and what is no run at all, is written over by what its own replica knows
-- better. A hash that takes the place of another is written aside and moved there: a Redis that is full
-- refuses the first write, and with it the whole.
--
-- Answers 0 kept, 1 the key has an earlier task with the same body, 2 with another body, 3 another replica
-- has the run; and the earlier task.
local task, unfinished, all, owner, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, life, index_life, forgotten = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local replica, fence, version, body = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local log, count, replies = KEYS[6], KEYS[7], KEYS[8]
local events, keep, whose, waits = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local ends = life ~= ''
local kind = redis.call('TYPE', task).ok
if kind == 'hash' then
    local there = redis.call('HMGET', task, 'plan', 'finished_at', 'fence', 'version')
    if there[1] then
        local theirs = tonumber(there[3]) or 0
        if theirs > fence then
            return {3, ''}
        end
        local newer = theirs == fence and (tonumber(there[4]) or 0) >= version
        if not ends and (there[2] or newer) then
            return {0, ''}
        end
    end
end
local submitted = key ~= '' and redis.call('TYPE', key).ok == 'hash'
    and redis.call('HMGET', key, 'task', 'body') or {}
local holds = submitted[1] == id
if submitted[1] and not holds and not ends and redis.call('EXISTS', 'task:' .. submitted[1]) == 1 then
    return {submitted[2] == body and 1 or 2, submitted[1]}
end
-- First, since it may be refused.
if events ~= '' then
    local n = redis.call('INCR', count)
    redis.call('XADD', log, 'MAXLEN', '~', keep, '*', 'n', n, 'owner', whose, 'events', events)
end
if kind == 'none' then
    redis.call('HSET', task, unpack(ARGV, 13))
else
    local aside = task .. ':aside'
    redis.call('HSET', aside, unpack(ARGV, 13))
    redis.call('RENAME', aside, task)
end
if key ~= '' and body == '' then
    if holds then
        redis.call('DEL', key)
    end
elseif key ~= '' and not (ends and submitted[1] and not holds) then
    redis.call('DEL', key)
    redis.call('HSET', key, 'task', id, 'body', body)
    if ends then
        redis.call('EXPIRE', key, life)
    end
end
if ends then
    redis.call('EXPIRE', task, life)
    redis.call('ZREM', unfinished, id)
    if waits == '1' then
        redis.call('ZADD', replies, 0, id)
    end
else
    redis.call('ZADD', unfinished, replica, id)
end
redis.call('ZADD', all, 0, id)
if owner ~= '' then
    redis.call('ZADD', owner, 0, id)
    -- Two kinds of ids, each in the order of its times: `collab_` sorts before `task_`.
    redis.call('ZREMRANGEBYLEX', owner, '-', (string.gsub(forgotten, '^%(task_', '(collab_')))
    redis.call('ZREMRANGEBYLEX', owner, '[task_', forgotten)
    redis.call('EXPIRE', owner, index_life)
end
return {0, ''}
