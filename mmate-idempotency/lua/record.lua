-- Commands to records, one to each, as `protocol::step` answers them. Redis runs a script as a
-- whole, so nothing comes between the look and the change.
--
-- KEYS     the records
-- ARGV     now (milliseconds since 1970, for tests; empty: the server's clock), and then for each
--          record a command and what it needs. Durations are in milliseconds; an empty text is one
--          that is absent.
--
-- Answers each with what became of it, or with its error. Claims are to come first: see `held`.
--
-- Numbers are exact up to 2^53: fences are, until the year 2248.

local call = redis.call
local time = call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local now = tonumber(ARGV[1]) or clock

local function digits(number)
    return string.format('%.0f', number)
end

local at_now = digits(now)
-- The same unit as in `first_fence` of the protocol.
local first = math.max(now * 1024, 1)

-- The server forgets the record when its time is over, by its own clock.
local function forget_at(key, moment)
    call('PEXPIREAT', key, digits(moment - now + clock))
end

local function claim(key, at)
    local mine, content = ARGV[at], ARGV[at + 1]
    local lease, kept = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local had = call('HMGET', key,
        'status', 'owner', 'fence', 'attempt', 'taken_over', 'fingerprint', 'lease_until', 'expires_at')
    local status = had[1]

    local function grant(fence, attempt, taken_over)
        local until_when = now + lease + kept
        fence = digits(fence)
        -- First what a server whose memory is full refuses.
        call('HSET', key,
            'status', 'in-progress', 'owner', mine, 'fence', fence,
            'attempt', attempt, 'taken_over', taken_over, 'fingerprint', content,
            'claimed_at', at_now, 'lease_until', digits(now + lease), 'expires_at', digits(until_when),
            'subscription', ARGV[at + 4], 'service_name', ARGV[at + 5], 'instance', ARGV[at + 6],
            'correlation_id', ARGV[at + 7], 'message_type', ARGV[at + 8],
            'trace_parent', ARGV[at + 9])
        if status then
            call('HDEL', key, 'processed_at', 'reply')
        end
        forget_at(key, until_when)
        return {'granted', fence, attempt, taken_over}
    end

    if not status then
        return grant(first, '1', '0')
    end
    local fence, attempt = tonumber(had[3] or 0), tonumber(had[4] or 0)
    local lease_until, expires_at = tonumber(had[7] or 0), tonumber(had[8] or '')
    local fingerprint = had[6] or ''
    if expires_at and expires_at <= now then
        -- It counts as absent, but its fence is not forgotten.
        return grant(math.max(fence + 1, first), '1', '0')
    elseif status == 'released' then
        return grant(fence + 1, digits(attempt + 1), '0')
    elseif status == 'in-progress' and had[2] == mine then
        return grant(fence, digits(attempt), had[5])
    elseif content ~= '' and fingerprint ~= '' and content ~= fingerprint then
        return {'conflict'}
    elseif status == 'done' then
        local seen = call('HMGET', key, 'processed_at', 'subscription', 'reply', 'trace_parent')
        return {'duplicate', seen[1], seen[2], seen[3], seen[4]}
    elseif now < lease_until then
        return {'busy', digits(lease_until - now)}
    else
        return grant(fence + 1, digits(attempt + 1), '1')
    end
end

-- What only the holder may do. `change` is given what stands behind the command.
--
-- Once a script has removed something it may also add: what was begun is finished although the
-- server's memory is full. Claims, which come before, are refused then.
local function held(becomes, change)
    return function(key, at)
        local mine, granted = ARGV[at], ARGV[at + 1]
        local had = call('HMGET', key, 'status', 'owner', 'fence', 'expires_at')
        local status, expires_at = had[1], tonumber(had[4] or '')
        if not status or (expires_at and expires_at <= now) then
            return 0
        -- Compared as text: what is granted was written by this script too.
        elseif status == becomes and had[3] == granted then
            return 1
        elseif status ~= 'in-progress' or had[2] ~= mine then
            return 0
        end
        call('HDEL', key, 'lease_until')
        change(key, at + 2)
        return 1
    end
end

local heartbeat = held(nil, function(key, at)
    local lease, kept = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local until_when = now + lease + kept
    call('HSET', key, 'lease_until', digits(now + lease), 'expires_at', digits(until_when))
    forget_at(key, until_when)
end)

local complete = held('done', function(key, at)
    local window = tonumber(ARGV[at])
    if window then
        call('HSET', key, 'status', 'done', 'processed_at', at_now, 'expires_at', digits(now + window))
        forget_at(key, now + window)
    else
        call('HSET', key, 'status', 'done', 'processed_at', at_now)
        call('HDEL', key, 'expires_at')
        call('PERSIST', key)
    end
    if ARGV[at + 1] == '1' then
        call('HSET', key, 'reply', ARGV[at + 2])
    end
end)

local release = held('released', function(key, at)
    local until_when = now + tonumber(ARGV[at])
    call('HSET', key, 'status', 'released', 'expires_at', digits(until_when))
    forget_at(key, until_when)
end)

-- With how many arguments each has behind its name.
local commands = {
    claim = {claim, 10},
    heartbeat = {heartbeat, 4},
    complete = {complete, 5},
    release = {release, 3},
}

local answers, at = {}, 2
for number, key in ipairs(KEYS) do
    local command = commands[ARGV[at]]
    if not command then
        return redis.error_reply('ERR mmate: an unknown command')
    end
    local ran, answer = pcall(command[1], key, at + 1)
    if not ran then
        -- The server's own errors begin with a code, behind where they happened or not.
        local text = type(answer) == 'table' and answer.err or tostring(answer)
        answer = redis.error_reply(string.match(text, '%u%u+ .*') or 'ERR ' .. text)
    end
    answers[number] = answer
    at = at + 1 + command[2]
end
return answers
