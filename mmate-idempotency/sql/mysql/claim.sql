-- Claims keys. Which of them were granted is to be seen afterwards: those rows have the claim's owner
-- and are in progress. The others are as they were.
--
-- Assignments are made one after the other, and what follows sees the new values. So what the
-- condition looks at is assigned last, in an order in which it stays as it was: once true, the row
-- has the claim's own fingerprint, owner and status.
INSERT INTO `{table}` (
    scope, message_id, status, processed_at, service_name, subscription, instance, correlation_id,
    message_type, fingerprint, owner, fence, attempt, taken_over, claimed_at, lease_until,
    expires_at, reply, trace_parent
) VALUES
{each}
(
    ?2, ?3, 'in progress', NULL, ?4, ?5, ?6, ?7, ?8, ?9, ?10, GREATEST(1, {now} * {fence_unit}), 1,
    FALSE, {now}, {now} + ?11, {now} + ?12, NULL, ?13
)
{end}
ON DUPLICATE KEY UPDATE
    processed_at = IF({claimable}, NULL, processed_at),
    service_name = IF({claimable}, VALUES(service_name), service_name),
    subscription = IF({claimable}, VALUES(subscription), subscription),
    instance = IF({claimable}, VALUES(instance), instance),
    correlation_id = IF({claimable}, VALUES(correlation_id), correlation_id),
    message_type = IF({claimable}, VALUES(message_type), message_type),
    reply = IF({claimable}, NULL, reply),
    trace_parent = IF({claimable}, VALUES(trace_parent), trace_parent),
    claimed_at = IF({claimable}, VALUES(claimed_at), claimed_at),
    fence = IF({claimable}, CASE
        WHEN expires_at <= VALUES(claimed_at) THEN GREATEST(fence + 1, VALUES(fence))
        WHEN status = 'in progress' AND owner = VALUES(owner) THEN fence
        ELSE fence + 1
    END, fence),
    attempt = IF({claimable}, CASE
        WHEN expires_at <= VALUES(claimed_at) THEN 1
        WHEN status = 'in progress' AND owner = VALUES(owner) THEN attempt
        ELSE attempt + 1
    END, attempt),
    taken_over = IF({claimable}, CASE
        WHEN expires_at <= VALUES(claimed_at) THEN FALSE
        WHEN status = 'released' THEN FALSE
        WHEN owner = VALUES(owner) THEN taken_over
        ELSE TRUE
    END, taken_over),
    fingerprint = IF({claimable}, VALUES(fingerprint), fingerprint),
    owner = IF({claimable}, VALUES(owner), owner),
    lease_until = IF({claimable}, VALUES(lease_until), lease_until),
    status = IF({claimable}, VALUES(status), status),
    expires_at = IF({claimable}, VALUES(expires_at), expires_at)
