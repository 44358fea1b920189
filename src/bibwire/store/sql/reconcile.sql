-- name: begin
-- Begin a reconciliation, or go on with the one whose full sync was interrupted. Back: where the
-- feed ended then, and the vendor instant to which the deltas had come.
UPDATE bibwire.scopes AS s
SET drift_after_seq = CASE
        WHEN s.full_since BETWEEN %(resume_after)s AND %(now)s::timestamptz + interval '10 seconds'
            AND s.drift_after_seq IS NOT NULL THEN s.drift_after_seq
        ELSE coalesce((SELECT h.last_seq FROM bibwire.feed_heads AS h WHERE h.partner_id = s.partner_id), 0)
    END,
    drift_before = CASE
        WHEN s.full_since BETWEEN %(resume_after)s AND %(now)s::timestamptz + interval '10 seconds'
            AND s.drift_after_seq IS NOT NULL THEN s.drift_before
        ELSE (
            SELECT min(t.cursor_at)
            FROM bibwire.streams AS t
            WHERE t.partner_id = s.partner_id AND t.race_id = s.race_id
        )
    END
WHERE s.partner_id = %(partner_id)s
  AND s.race_id = %(race_id)s
RETURNING drift_after_seq, drift_before;

-- name: lines
-- What the feed tells of a race after a line.
SELECT c.event_id, c.registration_id, c.kind, ARRAY(SELECT jsonb_object_keys(c.fields)), c.modified_at
FROM bibwire.changes AS c
WHERE c.partner_id = %(partner_id)s
  AND c.race_id = %(race_id)s
  AND c.seq > %(after_seq)s
  AND c.registration_id IS NOT NULL
ORDER BY c.seq;

-- name: write
INSERT INTO bibwire.reconciliations (
    partner_id, race_id, event_id, run_id, reconciled_at, verdict, counted, listed, same, differing, missing,
    extra, repaired, meanwhile, fields, note
)
VALUES (
    %(partner_id)s, %(race_id)s, %(event_id)s, %(run_id)s, %(now)s, %(verdict)s, %(counted)s, %(listed)s,
    %(same)s, %(differing)s, %(missing)s, %(extra)s, %(repaired)s, %(meanwhile)s, %(fields)s, %(note)s
);

-- name: add_drift
-- Add what was found to the partner's totals.
INSERT INTO bibwire.drift_totals AS t (partner_id, differing, missing, extra)
VALUES (%(partner_id)s, %(differing)s, %(missing)s, %(extra)s)
ON CONFLICT (partner_id) DO UPDATE
SET differing = t.differing + excluded.differing,
    missing = t.missing + excluded.missing,
    extra = t.extra + excluded.extra;

-- name: end
UPDATE bibwire.scopes
SET reconciled_at = %(now)s,
    counted_at = %(now)s,
    drift_after_seq = NULL,
    drift_before = NULL
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: counted
UPDATE bibwire.scopes
SET counted_at = %(now)s
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;
