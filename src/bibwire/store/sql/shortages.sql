-- name: told
-- A partner's name, whether it is paused, and the shortage that was told: nulls without one.
SELECT p.name, p.paused_at IS NOT NULL, l.short_from, l.short_until, l.short_calls_per_hour
FROM bibwire.plans AS l
JOIN bibwire.partners AS p USING (partner_id)
WHERE l.partner_id = %(partner_id)s;

-- name: keep
UPDATE bibwire.plans
SET short_from = %(begins_at)s,
    short_until = %(ends_at)s,
    short_calls_per_hour = %(needed)s
WHERE partner_id = %(partner_id)s;

-- name: short_partners
-- The partners of whose shortage the operator was told.
SELECT partner_id
FROM bibwire.plans
WHERE short_from IS NOT NULL;
