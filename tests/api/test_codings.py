"""Every valid coding of a body is read, and none of them fills the memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from bibwire.api.codings import PIECE_BYTES, BrokenCoding, UnknownCoding, Unpacker
from bibwire.domain.errors import AnswerUnreadable
from tests.api.loopback import Reply, listing, person, scene

TEXT = json.dumps(listing(*map(person, range(1, 300)))).encode()


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def _members(body: bytes) -> bytes:
    third = len(body) // 3
    parts = [body[:third], b"", body[third:]]
    return b"".join(map(gzip.compress, parts)) + b"\0" * 512


VALID: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "no coding": ("", bytes),
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "in capitals": ("GZIP", gzip.compress),
    "several members and padding": ("gzip", _members),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", _raw_deflate),
    "one on the other": ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    "nothing on gzip": ("gzip, identity", gzip.compress),
}


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("case", VALID)
def test_a_valid_coding_is_read_however_it_is_cut(case: str, step: int) -> None:
    name, pack = VALID[case]
    packed, unpacker = pack(TEXT), Unpacker(name)

    pieces = [
        piece
        for start in range(0, len(packed), step)
        for piece in unpacker.unpack(packed[start : start + step])
    ]
    unpacker.end()

    assert b"".join(pieces) == TEXT


def _whole(name: str, packed: bytes) -> bytes:
    unpacker = Unpacker(name)
    body = b"".join(unpacker.unpack(packed))
    unpacker.end()
    return body


@pytest.mark.parametrize("case", [case for case in VALID if VALID[case][0] not in ("", "identity")])
def test_a_body_that_is_cut_off_or_damaged_is_told(case: str) -> None:
    name, pack = VALID[case]
    packed = pack(TEXT).rstrip(b"\0")
    for broken in (packed[:-5], packed[: len(packed) // 2], b"\x9f" * 50, TEXT):
        with pytest.raises(BrokenCoding):
            _whole(name, broken)


@pytest.mark.parametrize("name", ["br", "zstd", "gzip, br", "compress", "gzip, gzip, gzip, gzip"])
def test_a_coding_that_was_not_asked_for_is_named(name: str) -> None:
    with pytest.raises(UnknownCoding, match=name.split(", ")[-1]):
        Unpacker(name)


@pytest.mark.parametrize("name", ["gzip", "deflate", "gzip, gzip"])
def test_little_that_unpacks_to_much_comes_in_small_pieces(name: str) -> None:
    packed = gzip.compress(bytes(50_000_000)) if "gzip" in name else zlib.compress(bytes(50_000_000))
    if name == "gzip, gzip":
        packed = gzip.compress(packed)
    pieces = Unpacker(name).unpack(packed)

    assert max(len(next(pieces)) for _ in range(20)) <= PIECE_BYTES


@pytest.mark.parametrize("case", VALID)
def test_the_client_reads_it(case: str) -> None:
    name, pack = VALID[case]

    async def run() -> int:
        async with scene(Reply(pack(TEXT), headers={"Content-Encoding": name})) as s:
            pages = [page async for page in s.client.participants(7, [1])]
            return sum(len(page.rows) for page in pages)

    assert asyncio.run(run()) == 299


def test_an_unknown_coding_is_tried_again_and_explained() -> None:
    async def run() -> tuple[str, int]:
        async with scene(Reply(TEXT, headers={"Content-Encoding": "br"}), max_attempts=3) as s:
            with pytest.raises(AnswerUnreadable) as caught:
                await s.client.participant_counts(7, [1])
            return str(caught.value), len(s.vendor.requests)

    said, calls = asyncio.run(run())

    assert said == "the vendor's answer is packed as br, which was not asked for"
    assert calls == 3
