-- What a listing alone does not prove: rights may be lost without a word, and lists come out short.

ALTER TABLE bibwire.partners ADD COLUMN race_list_at timestamptz;
COMMENT ON COLUMN bibwire.partners.race_list_at IS 'Private: begin (our clock) of the last race list read to its end; the races it showed were readable then.';

ALTER TABLE bibwire.scopes
    ADD COLUMN relist_since timestamptz,
    ADD COLUMN reread_from timestamptz;
COMMENT ON COLUMN bibwire.scopes.relist_since IS 'Since when everything is to be listed again by the next sweep, because rights came back or rows taken for gone did; null: no need.';
COMMENT ON COLUMN bibwire.scopes.reread_from IS 'Instant from which the next sweep reads changes again, because rights may have been lost since; null: from the cursor.';

CREATE TABLE bibwire.doubts (
    partner_id bigint NOT NULL,
    race_id bigint NOT NULL,
    event_id bigint NOT NULL,
    listing_high timestamptz NOT NULL,
    listed integer NOT NULL,
    believed_at timestamptz,
    PRIMARY KEY (partner_id, race_id, event_id),
    FOREIGN KEY (partner_id, race_id) REFERENCES bibwire.scopes ON DELETE CASCADE
);
COMMENT ON TABLE bibwire.doubts IS 'Private: events of which a full listing and the counts showed nobody, or far fewer than are stored: lost rights look the same.';
COMMENT ON COLUMN bibwire.doubts.partner_id IS 'Whose scope.';
COMMENT ON COLUMN bibwire.doubts.race_id IS 'The race.';
COMMENT ON COLUMN bibwire.doubts.event_id IS 'The event.';
COMMENT ON COLUMN bibwire.doubts.listing_high IS 'Vendor''s Date on the first answer of the first such listing.';
COMMENT ON COLUMN bibwire.doubts.listed IS 'Registrations of it in the last such listing.';
COMMENT ON COLUMN bibwire.doubts.believed_at IS 'When a second listing and the race list confirmed it, and those missing were marked absent; null: not yet.';

ALTER TABLE bibwire.events ADD COLUMN not_found_at timestamptz;
COMMENT ON COLUMN bibwire.events.not_found_at IS 'Private: since when (our clock) the vendor answers that it does not find the event; null: it does. A race list decides.';
COMMENT ON COLUMN bibwire.events.removed_at IS 'When a complete race list did not show the event either that the vendor had not found; null: it exists.';

ALTER TABLE bibwire.credentials
    ADD COLUMN list_pages_proven_at timestamptz,
    ADD COLUMN longest_page integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN bibwire.credentials.longest_page IS 'Private: rows of the longest page of a full listing seen; a page as long may have been cut to a limit.';
COMMENT ON COLUMN bibwire.credentials.list_pages_proven_at IS 'Private: when a list of several events that took several pages was first found to be complete by the counts; null: never.';
COMMENT ON COLUMN bibwire.credentials.trusted_list_length IS 'Private: of how many events asked for together the vendor listed as many registrations as it counts.';
