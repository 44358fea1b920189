-- name: begin
INSERT INTO bibwire.sync_history (partner_id, race_id, kind, started_at)
VALUES (%(partner_id)s, %(race_id)s, %(kind)s, %(started_at)s)
RETURNING run_id;

-- name: finish
UPDATE bibwire.sync_history
SET finished_at = %(finished_at)s,
    outcome = %(outcome)s,
    calls = %(calls)s,
    rows_inserted = %(inserted)s,
    rows_updated = %(updated)s,
    rows_unchanged = %(unchanged)s,
    rows_removed = %(removed)s,
    rows_quarantined = %(quarantined)s,
    error = %(error)s
WHERE run_id = %(run_id)s;
