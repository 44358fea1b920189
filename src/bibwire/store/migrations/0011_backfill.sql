-- What was loaded of events that are over, how far it is, and what looked for drift found.

CREATE TABLE bibwire.backfills (
    partner_id bigint NOT NULL,
    race_id bigint NOT NULL,
    wanted bigint[] NOT NULL DEFAULT '{}',
    event_ids bigint[] NOT NULL DEFAULT '{}',
    counts jsonb NOT NULL DEFAULT '{}',
    one_event_since timestamptz,
    position jsonb,
    years_read_at timestamptz,
    asked_at timestamptz NOT NULL,
    finished_at timestamptz,
    failing_since timestamptz,
    last_error text,
    PRIMARY KEY (partner_id, race_id),
    FOREIGN KEY (partner_id, race_id) REFERENCES bibwire.races ON DELETE CASCADE
);
COMMENT ON TABLE bibwire.backfills IS 'Private: what a backfill loads of the events of a race that are over, and how far it is.';
COMMENT ON COLUMN bibwire.backfills.partner_id IS 'Whose race.';
COMMENT ON COLUMN bibwire.backfills.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.backfills.wanted IS 'Events that the last backfill asked for is to load.';
COMMENT ON COLUMN bibwire.backfills.event_ids IS 'Events that are loaded, people and removed people.';
COMMENT ON COLUMN bibwire.backfills.counts IS 'The vendor''s own number of registrations by event id, from which the cost is foretold.';
COMMENT ON COLUMN bibwire.backfills.one_event_since IS 'Since when its events are asked for one at a time, because a list of them came out short; null: together.';
COMMENT ON COLUMN bibwire.backfills.position IS 'Where the sweep stands that goes on; null: none.';
COMMENT ON COLUMN bibwire.backfills.years_read_at IS 'When the race''s own page was read, which shows its events of all years; null: not yet.';
COMMENT ON COLUMN bibwire.backfills.asked_at IS 'When a backfill first asked for it.';
COMMENT ON COLUMN bibwire.backfills.finished_at IS 'When all that was wanted was loaded; null: not yet.';
COMMENT ON COLUMN bibwire.backfills.failing_since IS 'Since when its loading fails; null: it does not.';
COMMENT ON COLUMN bibwire.backfills.last_error IS 'Why it failed last.';

COMMENT ON COLUMN bibwire.changes.kind IS 'loaded: a race''s first complete load ended here, or that of the past events named in fields; the others say what happened to one registration.';
COMMENT ON COLUMN bibwire.changes.fields IS 'Each promised column of participants that changed: {"bib_num": [before, after]}; for loaded, counts, and event_ids where it is about these past events alone.';
COMMENT ON COLUMN bibwire.sync_history.kind IS 'full, delta, discovery, backfill or reconcile.';
