-- name: make_stage
CREATE TEMPORARY TABLE IF NOT EXISTS team_stage (LIKE bibwire.teams INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;

-- name: copy_stage
COPY team_stage (
    partner_id, team_id, race_id, event_id, name, team_type_id, gender, bib_num, member_count,
    last_modified_at, additional_data, first_seen_at, changed_at, asked_event_ids
) FROM STDIN;

-- name: merge
-- Store the teams of a page that are new or differ, and take back that they are missing. An event
-- that the page does not name is kept as it was known. Back: how many are new, and how many differ.
WITH page AS (
    SELECT
        s.*,
        coalesce(s.event_id, old.event_id) AS known_event_id,
        CASE WHEN coalesce(s.event_id, old.event_id) IS NULL THEN s.asked_event_ids END AS one_of,
        old.team_id IS NULL AS is_new,
        old.team_id IS NOT NULL AND (
            s.race_id, coalesce(s.event_id, old.event_id), s.name, s.team_type_id, s.gender, s.bib_num,
            s.member_count, s.last_modified_at, s.additional_data
        ) IS DISTINCT FROM (
            old.race_id, old.event_id, old.name, old.team_type_id, old.gender, old.bib_num,
            old.member_count, old.last_modified_at, old.additional_data
        ) AS differs,
        old.missing_since IS NOT NULL AS was_missing,
        old.asked_event_ids AS was_one_of
    FROM team_stage AS s
    LEFT JOIN bibwire.teams AS old USING (partner_id, team_id)
),

written AS (
    INSERT INTO bibwire.teams AS t (
        partner_id, team_id, race_id, event_id, name, team_type_id, gender, bib_num, member_count,
        last_modified_at, additional_data, first_seen_at, changed_at, asked_event_ids
    )
    SELECT
        p.partner_id, p.team_id, p.race_id, p.known_event_id, p.name, p.team_type_id, p.gender, p.bib_num,
        p.member_count, p.last_modified_at, p.additional_data, p.first_seen_at, p.changed_at, p.one_of
    FROM page AS p
    WHERE p.is_new OR p.differs OR p.was_missing OR p.one_of IS DISTINCT FROM p.was_one_of
    ORDER BY p.team_id
    ON CONFLICT (partner_id, team_id) DO UPDATE
    SET race_id = excluded.race_id,
        event_id = excluded.event_id,
        name = excluded.name,
        team_type_id = excluded.team_type_id,
        gender = excluded.gender,
        bib_num = excluded.bib_num,
        member_count = excluded.member_count,
        last_modified_at = excluded.last_modified_at,
        additional_data = excluded.additional_data,
        changed_at = CASE
            WHEN (
                t.race_id, t.event_id, t.name, t.team_type_id, t.gender, t.bib_num, t.member_count,
                t.last_modified_at, t.additional_data
            ) IS DISTINCT FROM (
                excluded.race_id, excluded.event_id, excluded.name, excluded.team_type_id, excluded.gender,
                excluded.bib_num, excluded.member_count, excluded.last_modified_at, excluded.additional_data
            ) THEN excluded.changed_at
            ELSE t.changed_at
        END,
        asked_event_ids = excluded.asked_event_ids,
        missing_since = NULL
)

SELECT
    count(*) FILTER (WHERE is_new),
    count(*) FILTER (WHERE differs),
    count(*) FILTER (WHERE was_missing)
FROM page;

-- name: mark_missing
-- Note which stored teams a complete listing of some events did not show. Back: those that the last one did.
UPDATE bibwire.teams
SET missing_since = %(now)s
WHERE partner_id = %(partner_id)s
  AND race_id = %(race_id)s
  AND missing_since IS NULL
  AND (
      event_id = ANY (%(event_ids)s::bigint[])
      OR (event_id IS NULL AND asked_event_ids <@ %(event_ids)s::bigint[])
  )
  AND NOT team_id = ANY (%(shown)s::bigint[])
RETURNING team_id;

-- name: known
-- Whether the mirror knows of teams of a race: stored ones, or people of these events in one.
SELECT
    EXISTS (
        SELECT FROM bibwire.teams AS t WHERE t.partner_id = %(partner_id)s AND t.race_id = %(race_id)s
    )
    OR EXISTS (
        SELECT
        FROM bibwire.participants AS p
        WHERE p.partner_id = %(partner_id)s
          AND p.race_id = %(race_id)s
          AND p.event_id = ANY (%(event_ids)s::bigint[])
          AND p.removed_at IS NULL
          AND p.team_info ->> 'team_id' ~ '^[1-9][0-9]{0,17}$'
    );

-- name: named
-- Teams that people of some events are in. The id stands there as sent: digits, where it is one.
SELECT DISTINCT (n.digits)::bigint
FROM (
    SELECT substring(p.team_info ->> 'team_id' FROM '^[1-9][0-9]{0,17}$') AS digits
    FROM bibwire.participants AS p
    WHERE p.partner_id = %(partner_id)s
      AND p.race_id = %(race_id)s
      AND p.event_id = ANY (%(event_ids)s::bigint[])
      AND p.removed_at IS NULL
      AND p.team_info IS NOT NULL
) AS n
WHERE n.digits IS NOT NULL;

-- name: stored
-- Those of some teams that are stored.
SELECT team_id
FROM bibwire.teams
WHERE partner_id = %(partner_id)s
  AND team_id = ANY (%(team_ids)s::bigint[]);

-- name: open
INSERT INTO bibwire.team_listings (partner_id, race_id)
VALUES (%(partner_id)s, %(race_id)s)
ON CONFLICT DO NOTHING;

-- name: state
-- How the listings of a race's teams stand; also whether its people are asked for one event at a time.
SELECT
    coalesce(l.event_ids, '{}'),
    l.position,
    coalesce(l.unlisted, '{}'),
    s.one_event_since IS NOT NULL OR b.one_event_since IS NOT NULL,
    l.one_event_since,
    l.refused_at
FROM bibwire.races AS r
LEFT JOIN bibwire.team_listings AS l USING (partner_id, race_id)
LEFT JOIN bibwire.scopes AS s USING (partner_id, race_id)
LEFT JOIN bibwire.backfills AS b USING (partner_id, race_id)
WHERE r.partner_id = %(partner_id)s
  AND r.race_id = %(race_id)s;

-- name: save_position
UPDATE bibwire.team_listings
SET position = %(position)s
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: finish
-- A backfill has listed the teams of some events.
UPDATE bibwire.team_listings AS t
SET event_ids = ARRAY(SELECT DISTINCT unnest(t.event_ids || %(event_ids)s::bigint[]) ORDER BY 1),
    position = NULL
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: works
-- A backfill that failed at a race's teams does so no more.
UPDATE bibwire.backfills
SET failing_since = NULL,
    last_error = NULL
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s AND failing_since IS NOT NULL;

-- name: note_listed
UPDATE bibwire.team_listings
SET listed_at = %(now)s,
    refused_at = NULL
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: ask_one_event
UPDATE bibwire.team_listings
SET one_event_since = %(now)s
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: save_unlisted
UPDATE bibwire.team_listings
SET unlisted = %(team_ids)s::bigint[]
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;

-- name: refuse
UPDATE bibwire.team_listings
SET refused_at = %(now)s,
    position = NULL
WHERE partner_id = %(partner_id)s AND race_id = %(race_id)s;
