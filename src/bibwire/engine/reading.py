"""How the store reads a listed record: it knows nothing of the vendor, and is handed this."""

from __future__ import annotations

from typing import Final

from bibwire.api import wire
from bibwire.store.loader import Reading

READING: Final = Reading(wire.decode_participant, wire.without_bib, wire.bib_and_time)
