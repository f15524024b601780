-- Letters after one. KEYS: mailbox, letters. ARGV: connection, the letter before, how many at most.
-- Answers: whether the connection holds, numbers, bodies.
local holds = redis.call('HGET', KEYS[1], 'connection')
if holds ~= ARGV[1] then
    return {holds and 'replaced' or 'gone', {}, {}}
end
local numbers, bodies = {}, {}
local from = string.format('%d-0', tonumber(ARGV[2]) + 1)
for place, letter in ipairs(redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ARGV[3])) do
    numbers[place] = string.match(letter[1], '^%d+')
    bodies[place] = letter[2][2]
end
return {'held', numbers, bodies}
