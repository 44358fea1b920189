-- The changes of an hour are found in the feed without reading what came before it.

ALTER TABLE bibwire.detection_lag ADD COLUMN first_seq bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN bibwire.detection_lag.first_seq IS 'Private: none of them stands before it in the partner''s feed.';
