-- name: take_seqs
-- Give out the next seqs. The row's lock is held to the commit: no gap, and commit order. One notice a
-- transaction, however many rows: who listens reads the table from the seq it knows.
WITH taken AS (
    INSERT INTO bibwire.feed_heads AS f (partner_id, last_seq)
    VALUES (%(partner_id)s, %(number)s)
    ON CONFLICT (partner_id) DO UPDATE
    SET last_seq = f.last_seq + %(number)s
    RETURNING f.partner_id, f.last_seq
)
SELECT t.last_seq, pg_notify('bibwire_changes', t.partner_id || ':' || t.last_seq)
FROM taken AS t;

-- name: copy_changes
-- The lines are JSON to whom writes them: feed.py.
COPY bibwire.changes (
    race_id, event_id, registration_id, kind, fields, modified_at, seen_at, bib_from, bib_to, partner_id, seq
) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE '\');
