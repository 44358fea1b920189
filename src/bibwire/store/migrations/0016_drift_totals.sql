-- Drift found so far, for monitors: a counter that stands when the reconciliations behind it are pruned.

CREATE TABLE bibwire.drift_totals (
    partner_id bigint PRIMARY KEY REFERENCES bibwire.partners ON DELETE CASCADE,
    differing bigint NOT NULL,
    missing bigint NOT NULL,
    extra bigint NOT NULL
);
COMMENT ON TABLE bibwire.drift_totals IS 'Rows that reconciliations of a partner ever found; it never falls, though old reconciliations are pruned.';
COMMENT ON COLUMN bibwire.drift_totals.partner_id IS 'Whose mirror.';
COMMENT ON COLUMN bibwire.drift_totals.differing IS 'Rows that the mirror held otherwise; see reconciliations.';
COMMENT ON COLUMN bibwire.drift_totals.missing IS 'Rows that the mirror did not hold as active.';
COMMENT ON COLUMN bibwire.drift_totals.extra IS 'Rows that the mirror held as active though they had left.';
INSERT INTO bibwire.drift_totals (partner_id, differing, missing, extra)
SELECT partner_id, sum(differing), sum(missing), sum(extra)
FROM bibwire.reconciliations
GROUP BY partner_id;
