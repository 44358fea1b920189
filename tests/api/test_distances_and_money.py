"""A distance or an amount is read where it can mean one thing only, and then exactly."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.api.distances import parse_distance
from bibwire.domain.money import parse_money


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("5K", "5000"),
        ("5 k", "5000"),
        (" 10K Run ", "10000"),
        ("5K Run/Walk", "5000"),
        ("2.5 km", "2500"),
        ("50 Kilometers", "50000"),
        ("3.1 Miles", "4988.9664"),
        ("26.2 Miles", "42164.8128"),
        ("10 Mile", "16093.44"),
        ("5Mile", "8046.72"),
        ("1/2 Mile", "804.672"),
        ("10-Miler", "16093.44"),
        ("Marathon", "42195"),
        ("half marathon", "21097.5"),
        ("Half-Marathon", "21097.5"),
        ("100m", "100"),
        ("1,500 m", "1500"),
        ("400 meters", "400"),
        ("50 metres", "50"),
        ("100 yards", "91.44"),
        ("1/2 Marathon", "21097.5"),
        ("½ Marathon", "21097.5"),
        ("1⁄2 marathon", "21097.5"),
        ("Half", "21097.5"),
        ("Half Marathon Run/Walk", "21097.5"),
        ("Half Marathon (13.1 Miles)", "21097.5"),
        ("5K (3.1 mi)", "5000"),
        ("Full", "42195"),
        ("1/4 Marathon", "10548.75"),
        ("Quarter Marathon", "10548.75"),
        ("1,609.344 meters", "1609.344"),
        ("13.1mi", "21082.4064"),
        ("13.1 mi.", "21082.4064"),
        ("10 K", "10000"),
        ("100 miler", "160934.4"),
        ("50k", "50000"),
        ("50K Ultra", "50000"),
        ("½ Mile", "804.672"),
        ("1½ miles", "2414.016"),
        ("1 1/2 Mile", "2414.016"),
        ("5K\u00a0Run", "5000"),
    ],
)
def test_a_distance_is_read(text: str, metres: str) -> None:
    assert parse_distance(text) == Decimal(metres)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "13.1M",
        "100M",
        "5m",
        "5",
        "5K & 10K",
        "5K/10K",
        "5,5 km",
        "6 Hours",
        "1/0 Mile",
        "0K",
        "-5K",
        "Marathon Relay",
        "Virtual",
        "٥K",
        "99999999K",
        "5 K M",
        "Half Marathon Relay",
        "Half Mile or so",
        "5K (10K)",
        "5K (timed)",
        "5K ()",
        "3/2 Marathon",
        "1 1/2 Marathon",
        "11/2 Miles",
        "2/2 Mile",
        "Half K",
        "½",
        "13.1",
        "1,60 meters",
        "5K" + " " * 100_000,
        "-" * 100_000,
        "- " * 100_000 + "run",
        "1" * 1_000_000 + "K",
        "1," * 1_000_000 + "K",
    ],
)
def test_what_could_mean_two_things_is_not_guessed(text: str) -> None:
    assert parse_distance(text) is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("$55.00", "55.00"),
        ("$0.00", "0.00"),
        ("$1,234.50", "1234.50"),
        ("$1,234,567.89", "1234567.89"),
        ("-$5.00", "-5.00"),
        ("$-5.00", "-5.00"),
        ("($5.00)", "-5.00"),
        ("55", "55"),
        ("$12.345", "12.345"),
        ("-$0.00", "0.00"),
    ],
)
def test_an_amount_keeps_every_digit(text: str, amount: str) -> None:
    parsed = parse_money(text)

    assert parsed is not None
    assert str(parsed) == amount


@pytest.mark.parametrize(
    "text",
    ["", "$", "free", "$1,23.00", "$12,34", "$1.", "$.50", "--$5", "-($5)", "($5", "$5)", "$ 5",
     " $5", "€5", "1e5", "NaN", "٥", "$" + "9" * 60],
)  # fmt: skip
def test_what_is_no_amount_is_none(text: str) -> None:
    assert parse_money(text) is None


@given(st.decimals(-(10**15), 10**15, places=2))
def test_amounts_come_back_as_they_were_written(amount: Decimal) -> None:
    sign = "-" if amount < 0 else ""
    assert parse_money(f"{sign}${abs(amount):,}") == amount
    if amount < 0:
        assert parse_money(f"(${abs(amount):,})") == amount


@given(st.text(max_size=30))
def test_no_text_breaks_the_readers(text: str) -> None:
    for parse in (parse_distance, parse_money):
        value = parse(text)
        assert value is None or value.is_finite()
