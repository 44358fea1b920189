-- name: doubted_before
-- Events that an older listing left in doubt.
SELECT event_id
FROM bibwire.doubts
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND event_id = ANY (%(event_ids)s)
  AND believed_at IS NULL
  AND listing_high < %(high)s;

-- name: doubt
-- The first listing that showed it counts: the next one may confirm it.
INSERT INTO bibwire.doubts AS d (partner_id, race_id, event_id, listing_high, listed)
SELECT %(partner_id)s, %(race_id)s, w.event_id, %(high)s, w.listed
FROM unnest(%(event_ids)s::bigint[], %(listed)s::integer[]) AS w (event_id, listed)
ON CONFLICT (partner_id, race_id, event_id) DO UPDATE
SET listing_high = CASE WHEN d.believed_at IS NULL THEN d.listing_high ELSE excluded.listing_high END,
    listed = excluded.listed,
    believed_at = NULL;

-- name: believe
UPDATE bibwire.doubts AS d
SET believed_at = %(now)s,
    listing_high = %(high)s,
    listed = w.listed
FROM unnest(%(event_ids)s::bigint[], %(listed)s::integer[]) AS w (event_id, listed)
WHERE d.partner_id = %(partner_id)s
  AND d.race_id = %(race_id)s
  AND d.event_id = w.event_id;

-- name: forget
-- A doubt is over; what was believed is remembered until people are seen (`people`: those events).
DELETE FROM bibwire.doubts
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND event_id = ANY (%(event_ids)s)
  AND (believed_at IS NULL OR event_id = ANY (%(people)s));
