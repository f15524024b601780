-- ARGV[6..]: id, holder, generation. Answers 1 when there was such a lease, or who waited for one.
local id = ARGV[6]
local lease = read(LEASES, id)
local ask = not lease and read(ASKS, id)
local record = lease or ask
if not record or record.holder ~= ARGV[7] or record.generation ~= tonumber(ARGV[8]) then
    return 0
end
if lease then
    free(id, lease)
else
    leave(id, ask)
end
serve(names_of(record, {}))
return 1
