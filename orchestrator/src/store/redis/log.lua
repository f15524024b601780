-- A part of the log: KEYS log, count of what was ever logged, the store's epoch.
-- ARGV: id of the entry after which to begin, most entries.
--
-- Answers the epoch, the count, the id of the last entry, the entries.
local log, count, epochs = KEYS[1], KEYS[2], KEYS[3]
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
local entries = {}
if #last > 0 and tonumber(ARGV[2]) > 0 and last[1][1] ~= ARGV[1] then
    entries = redis.call('XRANGE', log, ARGV[1], '+', 'COUNT', tonumber(ARGV[2]) + 1)
    if #entries > 0 and entries[1][1] == ARGV[1] then
        table.remove(entries, 1)
    elseif #entries > tonumber(ARGV[2]) then
        table.remove(entries)
    end
end
return {
    redis.call('GET', epochs) or '', tonumber(redis.call('GET', count) or 0), #last > 0 and last[1][1] or '0-0', entries
}
