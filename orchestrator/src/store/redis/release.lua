-- Gives up a replica's lease, and its turn to publish the log: KEYS the lease, who has the turn. ARGV: replica.
redis.call('DEL', KEYS[1])
if redis.call('GET', KEYS[2]) == ARGV[1] then
    redis.call('DEL', KEYS[2])
end
return 0
