-- loaded is told once a race; past events that come to it later are told as history_loaded.

ALTER TABLE bibwire.changes DROP CONSTRAINT changes_kind_check;

UPDATE bibwire.changes AS c
SET kind = 'history_loaded'
WHERE c.kind = 'loaded'
  AND (
      c.fields ? 'event_ids'
      OR EXISTS (
          SELECT
          FROM bibwire.changes AS o
          WHERE o.partner_id = c.partner_id AND o.race_id = c.race_id AND o.kind = 'loaded' AND o.seq < c.seq
      )
  );

ALTER TABLE bibwire.changes
    ADD CONSTRAINT changes_kind_check CHECK (
        kind IN (
            'loaded', 'history_loaded', 'registered', 'edited', 'bib_assigned', 'bib_changed', 'bib_cleared',
            'removed', 'restored'
        )
    );
CREATE UNIQUE INDEX changes_loaded_once ON bibwire.changes (partner_id, race_id) WHERE kind = 'loaded';

COMMENT ON COLUMN bibwire.changes.kind IS 'loaded: a race''s first complete load ended here, once a race; history_loaded: so did that of the past events named in fields, which came to it later; the others say what happened to one registration.';
COMMENT ON COLUMN bibwire.changes.fields IS 'Each promised column of participants that changed: {"bib_num": [before, after]}; for loaded and history_loaded, counts; for history_loaded, event_ids too.';
COMMENT ON COLUMN bibwire.changes.event_id IS 'The event after the change; null for kinds loaded and history_loaded.';
COMMENT ON COLUMN bibwire.changes.registration_id IS 'Whose registration; null for kinds loaded and history_loaded.';
