-- name: foreseen
-- A partner's name, and the shortage its last plan foresaw: nulls without one.
SELECT p.name, l.short_from, l.short_until, l.short_calls_per_hour, l.planned_at
FROM bibwire.plans AS l
JOIN bibwire.partners AS p USING (partner_id)
WHERE l.partner_id = %(partner_id)s;

-- name: short_partners
-- The partners whose last plan foresaw a shortage.
SELECT partner_id
FROM bibwire.plans
WHERE short_from IS NOT NULL;
