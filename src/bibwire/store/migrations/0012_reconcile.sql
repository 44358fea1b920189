-- What deltas cannot see is looked for: when, and what was found.

ALTER TABLE bibwire.scopes
    ADD COLUMN reconciled_at timestamptz,
    ADD COLUMN counted_at timestamptz,
    ADD COLUMN drift_after_seq bigint,
    ADD COLUMN drift_before timestamptz;
COMMENT ON COLUMN bibwire.scopes.reconciled_at IS 'When everything of the race was last listed to find what deltas had missed; null: never.';
COMMENT ON COLUMN bibwire.scopes.counted_at IS 'When the vendor''s counts were last held against the mirror by the schedule; null: never.';
COMMENT ON COLUMN bibwire.scopes.drift_after_seq IS 'Private: end of the feed when the reconciliation began that goes on or was interrupted; null: none.';
COMMENT ON COLUMN bibwire.scopes.drift_before IS 'Private: vendor instant before which the deltas should have seen everything when it began.';

CREATE TABLE bibwire.reconciliations (
    reconciliation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id bigint NOT NULL REFERENCES bibwire.partners ON DELETE CASCADE,
    race_id bigint NOT NULL,
    event_id bigint NOT NULL,
    run_id bigint,
    reconciled_at timestamptz NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('same', 'repaired', 'open')),
    counted bigint,
    listed bigint NOT NULL,
    same bigint NOT NULL,
    differing bigint NOT NULL,
    missing bigint NOT NULL,
    extra bigint NOT NULL,
    repaired bigint NOT NULL,
    meanwhile bigint NOT NULL,
    fields jsonb NOT NULL DEFAULT '{}',
    note text
);
CREATE INDEX reconciliations_of_race ON bibwire.reconciliations (partner_id, race_id, reconciliation_id);
COMMENT ON TABLE bibwire.reconciliations IS 'Full listings held against the mirror, one row an event: what the deltas had missed, and what became of it.';
COMMENT ON COLUMN bibwire.reconciliations.reconciliation_id IS 'Our number of it.';
COMMENT ON COLUMN bibwire.reconciliations.partner_id IS 'Whose view of the race.';
COMMENT ON COLUMN bibwire.reconciliations.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.reconciliations.event_id IS 'The event.';
COMMENT ON COLUMN bibwire.reconciliations.run_id IS 'The run in sync_history.';
COMMENT ON COLUMN bibwire.reconciliations.reconciled_at IS 'When it ended.';
COMMENT ON COLUMN bibwire.reconciliations.verdict IS 'same: no drift; repaired: there was, and there is no more; open: something could not be decided, see note.';
COMMENT ON COLUMN bibwire.reconciliations.counted IS 'The vendor''s own number of registrations; null: not asked for.';
COMMENT ON COLUMN bibwire.reconciliations.listed IS 'Registrations the vendor listed.';
COMMENT ON COLUMN bibwire.reconciliations.same IS 'Those of them that the mirror held as they are.';
COMMENT ON COLUMN bibwire.reconciliations.differing IS 'Those that the mirror held otherwise, though the change was older than its cursor.';
COMMENT ON COLUMN bibwire.reconciliations.missing IS 'Those that the mirror did not hold as active, though they were older than its cursor.';
COMMENT ON COLUMN bibwire.reconciliations.extra IS 'Registrations the mirror held as active that had left before its cursor, or without a trace.';
COMMENT ON COLUMN bibwire.reconciliations.repaired IS 'Rows of the mirror that were mended.';
COMMENT ON COLUMN bibwire.reconciliations.meanwhile IS 'Changes newer than the cursor: no drift, the next delta would have seen them.';
COMMENT ON COLUMN bibwire.reconciliations.fields IS 'How often each column differed: {"bib_num": 2}.';
COMMENT ON COLUMN bibwire.reconciliations.note IS 'What stayed open, in a sentence.';
