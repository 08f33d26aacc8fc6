-- One command to one record, as `protocol::step` answers it. Redis runs a script as a whole, so
-- nothing comes between the look and the change.
--
-- KEYS[1]  the record
-- ARGV     now (milliseconds since 1970, for tests; empty: the server's clock), the command, and
--          what it needs. Durations are in milliseconds; an empty text is one that is absent.
--
-- Numbers are exact up to 2^53: fences are, until the year 2248.

local key = KEYS[1]
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local now = tonumber(ARGV[1]) or clock
local command = ARGV[2]

local had = redis.call('HMGET', key,
    'status', 'owner', 'fence', 'attempt', 'taken_over', 'fingerprint', 'lease_until', 'expires_at')
local status, owner, fence, attempt = had[1], had[2], tonumber(had[3] or 0), tonumber(had[4] or 0)
local taken_over, fingerprint = had[5], had[6]
local lease_until, expires_at = tonumber(had[7] or 0), tonumber(had[8] or '')
-- A record whose time is over counts as absent, but its fence is not forgotten.
local is_over = expires_at ~= nil and expires_at <= now

local function digits(number)
    return string.format('%.0f', number)
end

-- The server forgets the record when its time is over, by its own clock.
local function keep_until(moment)
    redis.call('HSET', key, 'expires_at', digits(moment))
    redis.call('PEXPIREAT', key, digits(moment - now + clock))
end

if command == 'claim' then
    local mine, content = ARGV[3], ARGV[4]
    local lease, kept = tonumber(ARGV[5]), tonumber(ARGV[6])

    local function grant(fence, attempt, taken_over)
        -- First what a server whose memory is full refuses.
        redis.call('HSET', key,
            'status', 'in-progress', 'owner', mine, 'fence', digits(fence),
            'attempt', digits(attempt), 'taken_over', taken_over, 'fingerprint', content,
            'claimed_at', digits(now), 'lease_until', digits(now + lease),
            'subscription', ARGV[7], 'service_name', ARGV[8], 'instance', ARGV[9],
            'correlation_id', ARGV[10], 'message_type', ARGV[11], 'trace_parent', ARGV[12])
        redis.call('HDEL', key, 'processed_at', 'reply')
        keep_until(now + lease + kept)
        return {'granted', digits(fence), digits(attempt), taken_over}
    end

    -- The same unit as in `first_fence` of the protocol.
    local first = math.max(now * 1024, 1)
    local differs = content ~= '' and (fingerprint or '') ~= '' and content ~= fingerprint
    if not status then
        return grant(first, 1, '0')
    elseif is_over then
        return grant(math.max(fence + 1, first), 1, '0')
    elseif status == 'released' then
        return grant(fence + 1, attempt + 1, '0')
    elseif status == 'in-progress' and owner == mine then
        return grant(fence, attempt, taken_over)
    elseif differs then
        return {'conflict'}
    elseif status == 'done' then
        local seen = redis.call('HMGET', key, 'processed_at', 'subscription', 'reply', 'trace_parent')
        return {'duplicate', seen[1], seen[2], seen[3], seen[4]}
    elseif now < lease_until then
        return {'busy', digits(lease_until - now)}
    else
        return grant(fence + 1, attempt + 1, '1')
    end
end

local mine, granted = ARGV[3], ARGV[4]
local is_there = status and not is_over
local is_held = is_there and status == 'in-progress' and owner == mine
-- Compared as text: what is granted was written by this script too.
local is_latest = is_there and had[3] == granted

if is_latest and status == ({complete = 'done', release = 'released'})[command] then
    return 1
elseif not is_held then
    return 0
end

-- Once a script has removed something it may also add: what was begun is finished although the
-- server's memory is full, while nothing new is.
redis.call('HDEL', key, 'lease_until')

if command == 'heartbeat' then
    local lease, kept = tonumber(ARGV[5]), tonumber(ARGV[6])
    redis.call('HSET', key, 'lease_until', digits(now + lease))
    keep_until(now + lease + kept)
    return 1
elseif command == 'complete' then
    redis.call('HSET', key, 'status', 'done', 'processed_at', digits(now))
    if ARGV[6] == '1' then
        redis.call('HSET', key, 'reply', ARGV[7])
    end
    local window = tonumber(ARGV[5])
    if window then
        keep_until(now + window)
    else
        redis.call('HDEL', key, 'expires_at')
        redis.call('PERSIST', key)
    end
    return 1
elseif command == 'release' then
    redis.call('HSET', key, 'status', 'released')
    keep_until(now + tonumber(ARGV[5]))
    return 1
end
return redis.error_reply('ERR mmate: an unknown command')
