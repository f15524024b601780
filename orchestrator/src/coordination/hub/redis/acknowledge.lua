-- Takes letters out of a mailbox. KEYS: mailbox, letters. ARGV: connection, the last letter.
-- Answers: whether the connection holds, letters that are left.
local holds = redis.call('HGET', KEYS[1], 'connection')
if holds ~= ARGV[1] then
    return {holds and 'replaced' or 'gone', 0}
end
local freed = 0
for _, letter in ipairs(redis.call('XRANGE', KEYS[2], '-', ARGV[2] .. '-0')) do
    freed = freed + #letter[2][2]
    redis.call('XDEL', KEYS[2], letter[1])
end
if freed > 0 then
    redis.call('HINCRBY', KEYS[1], 'bytes', -freed)
end
return {'held', redis.call('XLEN', KEYS[2])}
