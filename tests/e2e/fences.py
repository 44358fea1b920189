"""
Proof by fencing numbers that no scope was swept twice at a time.

Triggers write down, in the transactions of the program under test, each lease that was taken, each
time it was held for a page, and each page and feed line that was written. What they tell is judged
by `assert_every_write_was_fenced`.
"""

from __future__ import annotations

import psycopg

from tests.e2e.truth import Row, Rows

AUDIT = """
CREATE TABLE public.fences (
    id bigint GENERATED ALWAYS AS IDENTITY,
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    what text NOT NULL,
    partner_id bigint NOT NULL,
    race_id bigint NOT NULL,
    epoch bigint NOT NULL,
    instance bigint
);

CREATE FUNCTION public.note_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.lease_epoch <> OLD.lease_epoch THEN
        INSERT INTO public.fences (what, partner_id, race_id, epoch, instance)
        VALUES ('taken', NEW.partner_id, NEW.race_id, NEW.lease_epoch, NEW.lease_instance);
    ELSIF NEW.lease_instance IS NOT NULL AND NEW.lease_expires_at IS DISTINCT FROM OLD.lease_expires_at THEN
        INSERT INTO public.fences (what, partner_id, race_id, epoch, instance)
        VALUES ('held', NEW.partner_id, NEW.race_id, NEW.lease_epoch, NEW.lease_instance);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION public.note_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.fences (what, partner_id, race_id, epoch)
    SELECT 'written', s.partner_id, s.race_id, s.lease_epoch
    FROM bibwire.scopes AS s
    WHERE s.partner_id = NEW.partner_id AND s.race_id = NEW.race_id;
    RETURN NULL;
END $$;

CREATE TRIGGER note_lease AFTER UPDATE ON bibwire.scopes FOR EACH ROW EXECUTE FUNCTION public.note_lease();
CREATE TRIGGER note_page AFTER UPDATE ON bibwire.streams FOR EACH ROW EXECUTE FUNCTION public.note_write();
CREATE TRIGGER note_change AFTER INSERT ON bibwire.changes FOR EACH ROW EXECUTE FUNCTION public.note_write();
"""


def watch(conninfo: str) -> None:
    """Begin to write down."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(AUDIT)


def assert_every_write_was_fenced(rows: Rows) -> int:
    """
    Fail if anything was written for a scope by who did not have its newest lease.

    Returns:
        How many leases were taken.
    """
    scopes: dict[tuple[int, int], list[Row]] = {}
    for row in rows("SELECT * FROM public.fences ORDER BY id"):
        scopes.setdefault((row["partner_id"], row["race_id"]), []).append(row)
    taken = 0
    for scope, notes in scopes.items():
        newest = 0
        owners: dict[int, int] = {}
        held = {(note["transaction"], note["epoch"]) for note in notes if note["what"] == "held"}
        for note in notes:
            epoch = note["epoch"]
            if note["what"] == "taken":
                assert epoch == newest + 1 or newest == 0, (scope, "a lease was taken twice", note)
                newest, owners[epoch] = epoch, note["instance"]
                taken += 1
            elif note["what"] == "held":
                assert epoch == newest, (scope, "an old lease was held", note)
                assert owners.get(epoch, note["instance"]) == note["instance"], (scope, "two had it", note)
            else:
                assert (note["transaction"], epoch) in held, (scope, "written without the lease", note)
    return taken
