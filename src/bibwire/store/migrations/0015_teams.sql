-- Teams: a relay carries its bib on the team, and neither a team's name nor its bib need move the
-- date of its members.

-- No foreign keys, as for participants: a race that is stored later must not undo a page.
CREATE TABLE bibwire.teams (
    partner_id bigint NOT NULL,
    team_id bigint NOT NULL,
    race_id bigint NOT NULL,
    event_id bigint,
    name text,
    team_type_id bigint,
    gender text,
    bib_num integer,
    member_count integer,
    last_modified_at timestamptz,
    additional_data jsonb NOT NULL DEFAULT '{}',
    first_seen_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    missing_since timestamptz,
    asked_event_ids bigint[],
    PRIMARY KEY (partner_id, team_id)
);
CREATE INDEX teams_of_race ON bibwire.teams (partner_id, race_id);
COMMENT ON TABLE bibwire.teams IS 'Teams of races, as listed; members are the participants with that team_id in team_info. Not in the feed: table changes tells of registrations alone. Rows are never deleted.';
COMMENT ON COLUMN bibwire.teams.partner_id IS 'Whose view of the team.';
COMMENT ON COLUMN bibwire.teams.team_id IS 'RunSignup team_id.';
COMMENT ON COLUMN bibwire.teams.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.teams.event_id IS 'The event; null: the vendor did not name it, and several were asked for together.';
COMMENT ON COLUMN bibwire.teams.name IS 'As typed.';
COMMENT ON COLUMN bibwire.teams.team_type_id IS 'RunSignup team_type_id.';
COMMENT ON COLUMN bibwire.teams.gender IS 'M, F, C (mixed) or empty, as sent.';
COMMENT ON COLUMN bibwire.teams.bib_num IS 'The team''s bib as a number; null: none. Not unique. Bib 0 is a bib. A bib that is no plain number stands as text in additional_data (team_bib_num).';
COMMENT ON COLUMN bibwire.teams.member_count IS 'How many members the vendor says it has.';
COMMENT ON COLUMN bibwire.teams.last_modified_at IS 'When the vendor last changed the team, to the second; its members have dates of their own.';
COMMENT ON COLUMN bibwire.teams.additional_data IS 'All that the vendor sent and no column holds.';
COMMENT ON COLUMN bibwire.teams.first_seen_at IS 'When we first stored it.';
COMMENT ON COLUMN bibwire.teams.changed_at IS 'When we last stored a change of it; that it is missing is none.';
COMMENT ON COLUMN bibwire.teams.missing_since IS 'When a complete listing of its event first did not show it; null: the last one did. A mark and no removal: the vendor gives no count of teams that could agree.';
COMMENT ON COLUMN bibwire.teams.asked_event_ids IS 'Private: where event_id is null, the events it is one of: those asked for together when it was last shown.';

CREATE TABLE bibwire.team_listings (
    partner_id bigint NOT NULL,
    race_id bigint NOT NULL,
    event_ids bigint[] NOT NULL DEFAULT '{}',
    position jsonb,
    listed_at timestamptz,
    one_event_since timestamptz,
    unlisted bigint[] NOT NULL DEFAULT '{}',
    refused_at timestamptz,
    PRIMARY KEY (partner_id, race_id),
    FOREIGN KEY (partner_id, race_id) REFERENCES bibwire.races ON DELETE CASCADE
);
COMMENT ON TABLE bibwire.team_listings IS 'Private: how far the teams of a race are loaded, and how they can be listed.';
COMMENT ON COLUMN bibwire.team_listings.partner_id IS 'Whose race.';
COMMENT ON COLUMN bibwire.team_listings.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.team_listings.event_ids IS 'Events whose teams a backfill has listed, since their people were last loaded by one.';
COMMENT ON COLUMN bibwire.team_listings.position IS 'Where a backfill''s listing stands that goes on; null: none.';
COMMENT ON COLUMN bibwire.team_listings.listed_at IS 'When its teams were last listed to the end, of whichever events; null: never.';
COMMENT ON COLUMN bibwire.team_listings.one_event_since IS 'Since when its events are asked for one at a time, because a list of them came out short; null: together.';
COMMENT ON COLUMN bibwire.team_listings.unlisted IS 'Teams that members name and that no list shows, not even of their event alone: no sign of a short list.';
COMMENT ON COLUMN bibwire.team_listings.refused_at IS 'When the vendor refused to list its teams; null: it does not.';

COMMENT ON COLUMN bibwire.quarantine.source IS 'races, participants, removed or teams.';
