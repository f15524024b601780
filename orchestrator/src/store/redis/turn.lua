-- Takes or keeps the turn to publish the log, and tells what is to be published: KEYS log, count of what was
-- ever logged, the store's epoch, who has the turn, up to where it is published, ended runs whose submitters
-- wait (scored by how often they were tried).
-- ARGV: replica, life of the turn in milliseconds, up to where it published ('' for no word), most entries and
-- runs to tell of, number of runs that were answered, these runs; then the runs that could not be answered.
--
-- Answers 1 when the replica has the turn, and what log.lua does; then up to where it is published, and the runs.
--
-- A Redis that is full goes on: what needs memory may fail, and is said again.
local log, count, epochs, holder, mark, replies = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local mine, life, up_to, most, answered = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local has = redis.call('GET', holder)
if has and has ~= mine then
    return {0, '', 0, '', {}, '', {}}
end
if has then
    redis.call('PEXPIRE', holder, life)
else
    redis.call('SET', holder, mine, 'PX', life)
end
if up_to ~= '' and has then
    redis.pcall('SET', mark, up_to)
end
for place = 6, #ARGV do
    if place < 6 + answered then
        redis.call('ZREM', replies, ARGV[place])
    elseif redis.call('ZSCORE', replies, ARGV[place]) then
        redis.pcall('ZINCRBY', replies, 1, ARGV[place])
    end
end
local from = redis.call('GET', mark) or '0-0-0'
local id = string.match(from, '^%d+%-%d+') or '0-0'
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
local entries = {}
if #last > 0 and last[1][1] ~= id then
    entries = redis.call('XRANGE', log, id, '+', 'COUNT', most + 1)
    if #entries > 0 and entries[1][1] == id then
        table.remove(entries, 1)
    elseif #entries > most then
        table.remove(entries)
    end
end
return {
    1, redis.call('GET', epochs) or '', tonumber(redis.call('GET', count) or 0), #last > 0 and last[1][1] or '0-0',
    entries, from, most > 0 and redis.call('ZRANGE', replies, 0, most - 1) or {}
}
