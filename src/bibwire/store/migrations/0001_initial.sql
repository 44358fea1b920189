-- The mirror. Every table and column says in its COMMENT what it holds; what is called
-- "private" there may change without notice, the rest is what readers may rely on.

CREATE TABLE bibwire.partners (
    partner_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    paused_at timestamptz,
    full_sync_since timestamptz
);
COMMENT ON TABLE bibwire.partners IS 'Timing companies whose RunSignup registrations are mirrored.';
COMMENT ON COLUMN bibwire.partners.partner_id IS 'Our number of the partner; every other key starts with it.';
COMMENT ON COLUMN bibwire.partners.name IS 'The name given on the command line.';
COMMENT ON COLUMN bibwire.partners.created_at IS 'When the partner was added.';
COMMENT ON COLUMN bibwire.partners.paused_at IS 'Since when nothing is asked for this partner; null: active.';
COMMENT ON COLUMN bibwire.partners.full_sync_since IS 'Private: begin of a full sync that goes on or was interrupted; null: none.';

CREATE TABLE bibwire.credentials (
    credential_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id bigint NOT NULL UNIQUE REFERENCES bibwire.partners ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('key', 'v2', 'bearer')),
    fingerprint text NOT NULL,
    calls_per_hour integer NOT NULL CHECK (calls_per_hour > 0),
    verified_at timestamptz,
    failing_since timestamptz,
    failing_reason text,
    trusted_list_length integer NOT NULL DEFAULT 1,
    key_encrypted bytea NOT NULL,
    secret_encrypted bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz
);
COMMENT ON TABLE bibwire.credentials IS 'One RunSignup credential a partner; key and secret are encrypted.';
COMMENT ON COLUMN bibwire.credentials.credential_id IS 'Our number of the credential.';
COMMENT ON COLUMN bibwire.credentials.partner_id IS 'Whose credential.';
COMMENT ON COLUMN bibwire.credentials.kind IS 'key: api_key and api_secret; v2: rsu_api_key with a secret header; bearer: an OAuth token.';
COMMENT ON COLUMN bibwire.credentials.fingerprint IS 'The last four signs of the key, to tell keys apart.';
COMMENT ON COLUMN bibwire.credentials.calls_per_hour IS 'Calls this credential may make in any rolling hour.';
COMMENT ON COLUMN bibwire.credentials.verified_at IS 'When a method that needs rights last answered under this credential; null: never.';
COMMENT ON COLUMN bibwire.credentials.failing_since IS 'Since when the vendor refuses it; null: it works or was not tried.';
COMMENT ON COLUMN bibwire.credentials.failing_reason IS 'What the vendor said when it refused, without secrets.';
COMMENT ON COLUMN bibwire.credentials.trusted_list_length IS 'Private: of how many events asked for together the vendor was seen to list the first ones and the last.';
COMMENT ON COLUMN bibwire.credentials.key_encrypted IS 'Private: AES-256-GCM, bound to table, partner and column.';
COMMENT ON COLUMN bibwire.credentials.secret_encrypted IS 'Private: AES-256-GCM, bound to table, partner and column; null for a bearer token.';
COMMENT ON COLUMN bibwire.credentials.created_at IS 'When the credential was first stored.';
COMMENT ON COLUMN bibwire.credentials.rotated_at IS 'When it was last replaced.';

CREATE TABLE bibwire.races (
    partner_id bigint NOT NULL REFERENCES bibwire.partners ON DELETE CASCADE,
    race_id bigint NOT NULL,
    name text NOT NULL,
    timezone text,
    url text,
    address jsonb,
    next_date date,
    last_modified_at timestamptz,
    additional_data jsonb NOT NULL DEFAULT '{}',
    access_lost_at timestamptz,
    removed_at timestamptz,
    unlisted_at timestamptz,
    first_seen_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (partner_id, race_id)
);
COMMENT ON TABLE bibwire.races IS 'Races a partner can see; a race keeps its race_id over the years.';
COMMENT ON COLUMN bibwire.races.partner_id IS 'Whose view of the race.';
COMMENT ON COLUMN bibwire.races.race_id IS 'RunSignup race_id.';
COMMENT ON COLUMN bibwire.races.name IS 'As typed by the organiser.';
COMMENT ON COLUMN bibwire.races.timezone IS 'IANA name of the race''s zone, as sent.';
COMMENT ON COLUMN bibwire.races.url IS 'The race''s page.';
COMMENT ON COLUMN bibwire.races.address IS 'street, street2, city, state, zipcode, country_code as sent.';
COMMENT ON COLUMN bibwire.races.next_date IS 'Next race day by the vendor; can be stale for series.';
COMMENT ON COLUMN bibwire.races.last_modified_at IS 'When the race record (not its registrations) changed at the vendor.';
COMMENT ON COLUMN bibwire.races.additional_data IS 'All that the vendor sent and no column holds.';
COMMENT ON COLUMN bibwire.races.access_lost_at IS 'Since when the vendor denies us the participants; null: readable or not tried.';
COMMENT ON COLUMN bibwire.races.removed_at IS 'When the vendor said that it does not know the race; null: it exists.';
COMMENT ON COLUMN bibwire.races.unlisted_at IS 'Since when the race is missing from the complete race list; null: listed. It is read on while the vendor answers.';
COMMENT ON COLUMN bibwire.races.first_seen_at IS 'When we first saw it.';
COMMENT ON COLUMN bibwire.races.changed_at IS 'When we last stored a change of it.';

CREATE TABLE bibwire.events (
    partner_id bigint NOT NULL REFERENCES bibwire.partners ON DELETE CASCADE,
    event_id bigint NOT NULL,
    race_id bigint NOT NULL,
    name text NOT NULL,
    starts_at timestamptz,
    ends_at timestamptz,
    distance text,
    distance_m numeric,
    event_type text,
    additional_data jsonb NOT NULL DEFAULT '{}',
    removed_at timestamptz,
    first_seen_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (partner_id, event_id)
);
CREATE INDEX events_of_race ON bibwire.events (partner_id, race_id);
COMMENT ON TABLE bibwire.events IS 'Events: one distance of a race in one year; event_id is new every year.';
COMMENT ON COLUMN bibwire.events.partner_id IS 'Whose view of the event.';
COMMENT ON COLUMN bibwire.events.event_id IS 'RunSignup event_id.';
COMMENT ON COLUMN bibwire.events.race_id IS 'The race it belongs to.';
COMMENT ON COLUMN bibwire.events.name IS 'As typed by the organiser.';
COMMENT ON COLUMN bibwire.events.starts_at IS 'The gun: the wall time the organiser typed, in the race''s zone, as an instant.';
COMMENT ON COLUMN bibwire.events.ends_at IS 'The end as an instant; often null.';
COMMENT ON COLUMN bibwire.events.distance IS 'As typed: 5K, 3.1 Miles.';
COMMENT ON COLUMN bibwire.events.distance_m IS 'Metres, where the text could be read.';
COMMENT ON COLUMN bibwire.events.event_type IS 'running_race and others, as sent.';
COMMENT ON COLUMN bibwire.events.additional_data IS 'All that the vendor sent and no column holds.';
COMMENT ON COLUMN bibwire.events.removed_at IS 'When the vendor said that it does not know the event; null: it exists.';
COMMENT ON COLUMN bibwire.events.first_seen_at IS 'When we first saw it.';
COMMENT ON COLUMN bibwire.events.changed_at IS 'When we last stored a change of it.';

-- No foreign keys: they would cost a look-up a row in the hottest COPY of the system.
CREATE TABLE bibwire.participants (
    partner_id bigint NOT NULL,
    registration_id bigint NOT NULL,
    race_id bigint NOT NULL,
    event_id bigint,
    user_id bigint,
    first_name text,
    middle_name text,
    last_name text,
    email text,
    phone text,
    dob date,
    gender text,
    age integer,
    address jsonb,
    city text,
    state text,
    country_code text,
    bib_num integer,
    chip_num text,
    registered_at timestamptz,
    last_modified_at timestamptz,
    team_info jsonb,
    payment_info jsonb,
    additional_data jsonb NOT NULL DEFAULT '{}',
    first_seen_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    removed_at timestamptz,
    removed_reason text,
    new_registration_id bigint,
    raw_hash bytea,
    as_of timestamptz NOT NULL,
    PRIMARY KEY (partner_id, registration_id)
);
-- A page of a full sweep is compared with the stored ids of its events and range; see loader.sql.
CREATE INDEX participants_of_race ON bibwire.participants (partner_id, race_id, event_id, registration_id);
-- "Who has 1234?" Bibs repeat (bundles, ranges per event), so the index is not unique.
CREATE INDEX participants_by_bib ON bibwire.participants (partner_id, race_id, bib_num) WHERE bib_num IS NOT NULL;
COMMENT ON TABLE bibwire.participants IS 'Registrations: one person in one event. Rows are never deleted; removed_at marks those who left.';
COMMENT ON COLUMN bibwire.participants.partner_id IS 'Whose view of the registration.';
COMMENT ON COLUMN bibwire.participants.registration_id IS 'RunSignup registration_id; a transfer to another event makes a new one.';
COMMENT ON COLUMN bibwire.participants.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.participants.event_id IS 'The event; null only for a removed registration whose event the vendor did not name.';
COMMENT ON COLUMN bibwire.participants.user_id IS 'The person''s account; null for imported people without one.';
COMMENT ON COLUMN bibwire.participants.first_name IS 'As typed.';
COMMENT ON COLUMN bibwire.participants.middle_name IS 'As typed.';
COMMENT ON COLUMN bibwire.participants.last_name IS 'As typed.';
COMMENT ON COLUMN bibwire.participants.email IS 'Not unique: a family shares one.';
COMMENT ON COLUMN bibwire.participants.phone IS 'Free text.';
COMMENT ON COLUMN bibwire.participants.dob IS 'Date of birth.';
COMMENT ON COLUMN bibwire.participants.gender IS 'M, F or X, as sent.';
COMMENT ON COLUMN bibwire.participants.age IS 'Age on race day by the vendor.';
COMMENT ON COLUMN bibwire.participants.address IS 'street, city, state, zipcode, country_code as sent.';
COMMENT ON COLUMN bibwire.participants.city IS 'Out of address.';
COMMENT ON COLUMN bibwire.participants.state IS 'Out of address; two letters in the US and Canada.';
COMMENT ON COLUMN bibwire.participants.country_code IS 'Out of address; ISO alpha-2.';
COMMENT ON COLUMN bibwire.participants.bib_num IS 'The bib as a number; null: none. Not unique. Bib 0 is a bib. A bib that is no plain number stands as text in additional_data.';
COMMENT ON COLUMN bibwire.participants.chip_num IS 'The chip, as text.';
COMMENT ON COLUMN bibwire.participants.registered_at IS 'When the person signed up, to the minute.';
COMMENT ON COLUMN bibwire.participants.last_modified_at IS 'When the vendor last changed the registration, to the second.';
COMMENT ON COLUMN bibwire.participants.team_info IS 'team_id, team_name, team_type_id, team_type, team_gender, team_bib_num; null: in no team.';
COMMENT ON COLUMN bibwire.participants.payment_info IS 'Fees and amounts in dollars as exact decimals, by the vendor''s field names.';
COMMENT ON COLUMN bibwire.participants.additional_data IS 'All that the vendor sent and no column holds, at the path it had.';
COMMENT ON COLUMN bibwire.participants.first_seen_at IS 'When we first stored it.';
COMMENT ON COLUMN bibwire.participants.changed_at IS 'When we last stored a change of it.';
COMMENT ON COLUMN bibwire.participants.removed_at IS 'When it left the event, by the vendor''s clock; null: active.';
COMMENT ON COLUMN bibwire.participants.removed_reason IS 'cleared, removed, transferred, deferred or another word of the vendor; absent: missing from a complete listing that the vendor''s count confirmed.';
COMMENT ON COLUMN bibwire.participants.new_registration_id IS 'Where a transferred registration went.';
COMMENT ON COLUMN bibwire.participants.raw_hash IS 'Private: digest of the record as last sent, so that an equal one is not read again.';
COMMENT ON COLUMN bibwire.participants.as_of IS 'Private: vendor''s Date of the answer the row was stored from; an older answer never overwrites it.';

CREATE TABLE bibwire.changes (
    partner_id bigint NOT NULL,
    seq bigint NOT NULL,
    race_id bigint NOT NULL,
    event_id bigint,
    registration_id bigint,
    kind text NOT NULL CHECK (kind IN ('loaded', 'registered', 'edited', 'bib_assigned', 'bib_changed', 'bib_cleared', 'removed', 'restored')),
    fields jsonb NOT NULL,
    modified_at timestamptz,
    seen_at timestamptz NOT NULL,
    bib_from integer,
    bib_to integer,
    PRIMARY KEY (partner_id, seq)
);
CREATE INDEX changes_of_registration ON bibwire.changes (partner_id, registration_id, seq);
CREATE INDEX changes_of_race ON bibwire.changes (partner_id, race_id, seq);
CREATE INDEX changes_of_bibs ON bibwire.changes (partner_id, seq) WHERE bib_from IS DISTINCT FROM bib_to;
COMMENT ON TABLE bibwire.changes IS 'Every change of a registration, once, in the order of its commit; seq has no gaps for a partner.';
COMMENT ON COLUMN bibwire.changes.partner_id IS 'Whose view changed.';
COMMENT ON COLUMN bibwire.changes.seq IS 'Position in the partner''s feed, from 1: a reader that remembers it misses nothing.';
COMMENT ON COLUMN bibwire.changes.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.changes.event_id IS 'The event after the change; null for kind loaded.';
COMMENT ON COLUMN bibwire.changes.registration_id IS 'Whose registration; null for kind loaded.';
COMMENT ON COLUMN bibwire.changes.kind IS 'loaded: a race''s first complete load ended here; the others say what happened to one registration.';
COMMENT ON COLUMN bibwire.changes.fields IS 'Each promised column of participants that changed: {"bib_num": [before, after]}; for loaded, counts.';
COMMENT ON COLUMN bibwire.changes.modified_at IS 'When the vendor says it happened; null where it does not say.';
COMMENT ON COLUMN bibwire.changes.seen_at IS 'When we saw it.';
COMMENT ON COLUMN bibwire.changes.bib_from IS 'Private, see bib_changes: the bib in force before; a removed registration has none.';
COMMENT ON COLUMN bibwire.changes.bib_to IS 'Private, see bib_changes: the bib in force after.';

CREATE VIEW bibwire.bib_changes AS
SELECT partner_id, seq, race_id, event_id, registration_id, bib_from, bib_to, modified_at, seen_at
FROM bibwire.changes
WHERE bib_from IS DISTINCT FROM bib_to;
COMMENT ON VIEW bibwire.bib_changes IS 'Changes of the bib in force: assigned, changed, cleared, and freed or returned when its holder is removed or restored.';
COMMENT ON COLUMN bibwire.bib_changes.partner_id IS 'Whose view changed.';
COMMENT ON COLUMN bibwire.bib_changes.seq IS 'Position in the partner''s feed (table changes); not without gaps here.';
COMMENT ON COLUMN bibwire.bib_changes.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.bib_changes.event_id IS 'The event after the change.';
COMMENT ON COLUMN bibwire.bib_changes.registration_id IS 'Whose bib.';
COMMENT ON COLUMN bibwire.bib_changes.bib_from IS 'The bib before; null: none.';
COMMENT ON COLUMN bibwire.bib_changes.bib_to IS 'The bib after; null: none.';
COMMENT ON COLUMN bibwire.bib_changes.modified_at IS 'When the vendor says it happened.';
COMMENT ON COLUMN bibwire.bib_changes.seen_at IS 'When we saw it.';

CREATE TABLE bibwire.feed_heads (
    partner_id bigint PRIMARY KEY REFERENCES bibwire.partners ON DELETE CASCADE,
    last_seq bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE bibwire.feed_heads IS 'Private: the last seq given out; the row''s lock, held to the commit, keeps seq gapless and in commit order.';
COMMENT ON COLUMN bibwire.feed_heads.partner_id IS 'Whose feed.';
COMMENT ON COLUMN bibwire.feed_heads.last_seq IS 'The newest seq.';

CREATE TABLE bibwire.scopes (
    partner_id bigint NOT NULL,
    race_id bigint NOT NULL,
    loaded_at timestamptz,
    full_since timestamptz,
    listed_at timestamptz,
    one_event_since timestamptz,
    failing_since timestamptz,
    last_error text,
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_instance integer,
    lease_expires_at timestamptz,
    PRIMARY KEY (partner_id, race_id),
    FOREIGN KEY (partner_id, race_id) REFERENCES bibwire.races ON DELETE CASCADE
);
COMMENT ON TABLE bibwire.scopes IS 'Private: how the sync of one race of one partner stands. See view freshness.';
COMMENT ON COLUMN bibwire.scopes.partner_id IS 'Whose scope.';
COMMENT ON COLUMN bibwire.scopes.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.scopes.loaded_at IS 'When both streams had been swept in full once; null: the first load goes on.';
COMMENT ON COLUMN bibwire.scopes.full_since IS 'Begin of a full sync of the race that goes on or was interrupted; null: none.';
COMMENT ON COLUMN bibwire.scopes.listed_at IS 'When a full sync of both streams last ended; null: never.';
COMMENT ON COLUMN bibwire.scopes.one_event_since IS 'Since when events are asked for one at a time, because an answer to a list could not be trusted.';
COMMENT ON COLUMN bibwire.scopes.failing_since IS 'Since when sweeps fail; null: the last one succeeded.';
COMMENT ON COLUMN bibwire.scopes.last_error IS 'Why the last sweep failed.';
COMMENT ON COLUMN bibwire.scopes.lease_epoch IS 'Fencing number: grows with every lease; a page commits only under the newest.';
COMMENT ON COLUMN bibwire.scopes.lease_instance IS 'The process that holds the lease; it holds an advisory lock of this number while it lives.';
COMMENT ON COLUMN bibwire.scopes.lease_expires_at IS 'When the lease runs out unless renewed.';

CREATE TABLE bibwire.streams (
    partner_id bigint NOT NULL,
    race_id bigint NOT NULL,
    stream text NOT NULL CHECK (stream IN ('participants', 'removed')),
    cursor_at timestamptz,
    event_ids bigint[] NOT NULL DEFAULT '{}',
    long_at timestamptz,
    listing_ended_at timestamptz,
    listing_high timestamptz,
    listing_counts jsonb,
    sweep_kind text CHECK (sweep_kind IN ('full', 'delta')),
    sweep_since timestamptz,
    sweep_long boolean,
    sweep_high timestamptz,
    sweep_groups jsonb,
    sweep_group integer,
    sweep_after bigint,
    sweep_listed jsonb,
    sweep_started_at timestamptz,
    PRIMARY KEY (partner_id, race_id, stream),
    FOREIGN KEY (partner_id, race_id) REFERENCES bibwire.scopes ON DELETE CASCADE
);
COMMENT ON TABLE bibwire.streams IS 'Private: cursor of one stream of a scope, and the position inside a sweep that goes on.';
COMMENT ON COLUMN bibwire.streams.partner_id IS 'Whose scope.';
COMMENT ON COLUMN bibwire.streams.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.streams.stream IS 'participants or removed.';
COMMENT ON COLUMN bibwire.streams.cursor_at IS 'The vendor instant up to which the mirror is complete for event_ids; null: not loaded.';
COMMENT ON COLUMN bibwire.streams.event_ids IS 'The events the cursor speaks for; an event not among them is swept in full first.';
COMMENT ON COLUMN bibwire.streams.long_at IS 'Where the cursor stood after the last sweep that read the long span again.';
COMMENT ON COLUMN bibwire.streams.listing_ended_at IS 'When (our clock) the listing of a full sync that goes on ended; null: not yet, or there is none.';
COMMENT ON COLUMN bibwire.streams.listing_high IS 'Vendor''s Date on its first answer.';
COMMENT ON COLUMN bibwire.streams.listing_counts IS 'Rows it listed by event id.';
COMMENT ON COLUMN bibwire.streams.sweep_kind IS 'full or delta while a sweep goes on; null: none.';
COMMENT ON COLUMN bibwire.streams.sweep_since IS 'Lower bound the sweep asks from; null for a full one.';
COMMENT ON COLUMN bibwire.streams.sweep_long IS 'Whether the sweep reads the long span again.';
COMMENT ON COLUMN bibwire.streams.sweep_high IS 'Vendor''s Date on the sweep''s first answer: the next cursor.';
COMMENT ON COLUMN bibwire.streams.sweep_groups IS 'Lists of event ids, each asked for in one request sequence.';
COMMENT ON COLUMN bibwire.streams.sweep_group IS 'Index of the list the sweep is in.';
COMMENT ON COLUMN bibwire.streams.sweep_after IS 'Last registration id committed in that list.';
COMMENT ON COLUMN bibwire.streams.sweep_listed IS 'Rows listed so far by event id, to be held against the vendor''s own count.';
COMMENT ON COLUMN bibwire.streams.sweep_started_at IS 'When (our clock) the sweep began.';

CREATE TABLE bibwire.missing (
    partner_id bigint NOT NULL,
    race_id bigint NOT NULL,
    registration_id bigint NOT NULL,
    PRIMARY KEY (partner_id, race_id, registration_id),
    FOREIGN KEY (partner_id, race_id) REFERENCES bibwire.scopes ON DELETE CASCADE
);
COMMENT ON TABLE bibwire.missing IS 'Private: active rows that the full sweep going on did not list; decided upon at its end.';
COMMENT ON COLUMN bibwire.missing.partner_id IS 'Whose scope.';
COMMENT ON COLUMN bibwire.missing.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.missing.registration_id IS 'The registration not listed.';

CREATE TABLE bibwire.sync_history (
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id bigint NOT NULL REFERENCES bibwire.partners ON DELETE CASCADE,
    race_id bigint,
    kind text NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    outcome text CHECK (outcome IN ('ok', 'partial', 'failed')),
    calls integer NOT NULL DEFAULT 0,
    rows_inserted bigint NOT NULL DEFAULT 0,
    rows_updated bigint NOT NULL DEFAULT 0,
    rows_unchanged bigint NOT NULL DEFAULT 0,
    rows_removed bigint NOT NULL DEFAULT 0,
    rows_quarantined bigint NOT NULL DEFAULT 0,
    error text
);
CREATE INDEX sync_history_of_scope ON bibwire.sync_history (partner_id, race_id, run_id);
COMMENT ON TABLE bibwire.sync_history IS 'What each run did: one row a race swept, and one a discovery.';
COMMENT ON COLUMN bibwire.sync_history.run_id IS 'Number of the run.';
COMMENT ON COLUMN bibwire.sync_history.partner_id IS 'For whom.';
COMMENT ON COLUMN bibwire.sync_history.race_id IS 'The race; null for a discovery.';
COMMENT ON COLUMN bibwire.sync_history.kind IS 'full, delta or discovery.';
COMMENT ON COLUMN bibwire.sync_history.started_at IS 'When it began.';
COMMENT ON COLUMN bibwire.sync_history.finished_at IS 'When it ended; null: it goes on, or its process died.';
COMMENT ON COLUMN bibwire.sync_history.outcome IS 'ok; partial: something of it could not be done or read, see error; failed: nothing may be concluded from it.';
COMMENT ON COLUMN bibwire.sync_history.calls IS 'Calls made, retries counted.';
COMMENT ON COLUMN bibwire.sync_history.rows_inserted IS 'Registrations not stored before.';
COMMENT ON COLUMN bibwire.sync_history.rows_updated IS 'Registrations that differed.';
COMMENT ON COLUMN bibwire.sync_history.rows_unchanged IS 'Registrations listed and equal to what is stored.';
COMMENT ON COLUMN bibwire.sync_history.rows_removed IS 'Registrations newly marked as removed.';
COMMENT ON COLUMN bibwire.sync_history.rows_quarantined IS 'Records that could not be represented.';
COMMENT ON COLUMN bibwire.sync_history.error IS 'What went wrong, in one sentence.';

CREATE TABLE bibwire.quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id bigint NOT NULL REFERENCES bibwire.partners ON DELETE CASCADE,
    race_id bigint,
    registration_id bigint,
    source text NOT NULL,
    reason text NOT NULL,
    raw text NOT NULL,
    raw_hash bytea NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    times integer NOT NULL DEFAULT 1,
    resolved_at timestamptz,
    UNIQUE (partner_id, source, raw_hash)
);
CREATE INDEX quarantine_open ON bibwire.quarantine (partner_id, race_id) WHERE resolved_at IS NULL;
COMMENT ON TABLE bibwire.quarantine IS 'Records the vendor sent that cannot be represented in the mirror.';
COMMENT ON COLUMN bibwire.quarantine.quarantine_id IS 'Number of the entry.';
COMMENT ON COLUMN bibwire.quarantine.partner_id IS 'Whose record.';
COMMENT ON COLUMN bibwire.quarantine.race_id IS 'The race it was listed for, where known.';
COMMENT ON COLUMN bibwire.quarantine.registration_id IS 'Its registration id, where that could be read.';
COMMENT ON COLUMN bibwire.quarantine.source IS 'races, participants or removed.';
COMMENT ON COLUMN bibwire.quarantine.reason IS 'Why it could not be stored.';
COMMENT ON COLUMN bibwire.quarantine.raw IS 'The record as sent (JSON text; credentials blotted out).';
COMMENT ON COLUMN bibwire.quarantine.raw_hash IS 'Private: digest of raw.';
COMMENT ON COLUMN bibwire.quarantine.first_seen_at IS 'When it was first met.';
COMMENT ON COLUMN bibwire.quarantine.last_seen_at IS 'When it was last met.';
COMMENT ON COLUMN bibwire.quarantine.times IS 'How often it was met.';
COMMENT ON COLUMN bibwire.quarantine.resolved_at IS 'When the registration was next read without fault; null: still unreadable.';

CREATE TABLE bibwire.call_minutes (
    credential_id bigint NOT NULL REFERENCES bibwire.credentials ON DELETE CASCADE,
    minute timestamptz NOT NULL,
    calls integer NOT NULL,
    PRIMARY KEY (credential_id, minute)
);
COMMENT ON TABLE bibwire.call_minutes IS 'Private: calls permitted per credential and minute, by the database''s clock; the last 61 are the budget.';
COMMENT ON COLUMN bibwire.call_minutes.credential_id IS 'Which credential.';
COMMENT ON COLUMN bibwire.call_minutes.minute IS 'The minute''s begin.';
COMMENT ON COLUMN bibwire.call_minutes.calls IS 'Calls permitted in it, retries counted.';

-- Owner's tiers (docs/scheduling): the slowest a race may be polled, by time to its nearest start.
CREATE VIEW bibwire.freshness AS
SELECT
    s.partner_id,
    s.race_id,
    c.as_of,
    extract(epoch FROM now() - c.as_of)::double precision AS age_seconds,
    e.target_seconds,
    s.failing_since,
    s.last_error
FROM bibwire.scopes AS s
CROSS JOIN LATERAL (
    SELECT CASE WHEN count(*) = 2 AND bool_and(t.cursor_at IS NOT NULL) THEN min(t.cursor_at) END AS as_of
    FROM bibwire.streams AS t
    WHERE t.partner_id = s.partner_id AND t.race_id = s.race_id
) AS c
CROSS JOIN LATERAL (
    -- A race is as urgent as its most urgent live event.
    SELECT min(
        CASE
            WHEN v.starts_at > now() + interval '24 hours' THEN 14400
            WHEN v.starts_at > now() + interval '4 hours' THEN 900
            WHEN v.starts_at > now() - interval '1 hour' THEN 60
            WHEN v.starts_at <= now() - interval '1 hour' THEN 3600
            ELSE 14400
        END
    ) AS target_seconds
    FROM bibwire.events AS v
    WHERE v.partner_id = s.partner_id
      AND v.race_id = s.race_id
      AND v.removed_at IS NULL
      AND (
          coalesce(v.ends_at, v.starts_at) + interval '7 days' > now()
          OR coalesce(v.ends_at, v.starts_at) IS NULL
      )
) AS e;
COMMENT ON VIEW bibwire.freshness IS 'How fresh each race is: as of which vendor instant the mirror equals the vendor''s state.';
COMMENT ON COLUMN bibwire.freshness.partner_id IS 'Whose race.';
COMMENT ON COLUMN bibwire.freshness.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.freshness.as_of IS 'Vendor instant the mirror is complete to, both streams; null: not loaded.';
COMMENT ON COLUMN bibwire.freshness.age_seconds IS 'Seconds since as_of, by the database''s clock.';
COMMENT ON COLUMN bibwire.freshness.target_seconds IS 'How old it may be by the owner''s tiers; null: no event is live.';
COMMENT ON COLUMN bibwire.freshness.failing_since IS 'Since when sweeps of it fail; null: they do not.';
COMMENT ON COLUMN bibwire.freshness.last_error IS 'Why the last sweep failed.';

-- lz4 makes a first load 1.3 to 1.45 times faster; not every server is built with it.
DO $$
BEGIN
    IF 'lz4' = ANY (SELECT unnest(enumvals) FROM pg_settings WHERE name = 'default_toast_compression') THEN
        ALTER TABLE bibwire.participants
            ALTER COLUMN additional_data SET COMPRESSION lz4,
            ALTER COLUMN address SET COMPRESSION lz4,
            ALTER COLUMN payment_info SET COMPRESSION lz4;
        ALTER TABLE bibwire.changes ALTER COLUMN fields SET COMPRESSION lz4;
    END IF;
END
$$;

COMMENT ON TABLE bibwire.schema_version IS 'Private: which migration the schema stands at.';
COMMENT ON COLUMN bibwire.schema_version.version_num IS 'Its number.';
