-- name: take_seqs
-- Give out the next seqs. The row's lock is held to the commit: no gap, and commit order.
INSERT INTO bibwire.feed_heads AS f (partner_id, last_seq)
VALUES (%(partner_id)s, %(number)s)
ON CONFLICT (partner_id) DO UPDATE
SET last_seq = f.last_seq + %(number)s
RETURNING last_seq;

-- name: copy_changes
COPY bibwire.changes (
    partner_id, seq, race_id, event_id, registration_id, kind, fields, modified_at, seen_at, bib_from, bib_to
) FROM STDIN;

-- name: notify
-- One notice a transaction, however many rows: who listens reads the table from the seq it knows.
SELECT pg_notify('bibwire_changes', %(partner_id)s || ':' || %(last_seq)s);
