-- One command to the numbers of one key. Redis runs a script as a whole, so nobody takes a number
-- between the look and the change.
--
-- KEYS[1]  the last number that was given out
-- KEYS[2]  the number that an id has; the same key as the first where no id is asked for
-- ARGV     the command, and what it needs. Durations are in milliseconds.
--
-- Numbers are exact up to 2^53.

local command = ARGV[1]
local last = tonumber(redis.call('GET', KEYS[1]) or 0)

local function digits(number)
    return string.format('%.0f', number)
end

if command == 'last' then
    return digits(last)
elseif command == 'raise' then
    local least = tonumber(ARGV[2])
    if least > last then
        last = least
        redis.call('SET', KEYS[1], digits(last))
    end
    return digits(last)
end

local had = redis.call('GET', KEYS[2])
if command == 'next' then
    if not had then
        had = digits(last + 1)
        redis.call('SET', KEYS[1], had)
    end
    -- Who asks again is still at it.
    redis.call('SET', KEYS[2], had, 'PX', ARGV[2])
    return had
elseif command == 'give back' then
    if not had or tonumber(had) ~= last then
        return '0'
    end
    redis.call('DEL', KEYS[2])
    redis.call('SET', KEYS[1], digits(last - 1))
    return '1'
end
return redis.error_reply('ERR mmate: an unknown command')
