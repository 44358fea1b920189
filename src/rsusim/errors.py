"""The vendor's error codes (section 4), raised inside the simulator and answered as objects."""

from collections.abc import Sequence
from typing import Final

TEXTS: Final[dict[int, str]] = {
    1: "Unknown method",
    2: "HTTP method not supported for this REST method",
    3: "Invalid parameters",
    4: "Unknown error",
    5: "Database error",
    6: "Key authentication failed",
    7: "Permission Denied",
    8: "Not implemented",
    9: "Invalid date",
    10: "Response format not supported for this REST method",
    11: "Invalid submission",
    12: "Request received out of order",
    13: "You must be logged in to the API as a user",
    14: "Request throttled.",
    15: "Invalid ID.",
    17: "Invalid API caller credentials.",
    101: "User not found",
    102: "Email or password invalid",
    201: "Race not found.",
    301: "Event not found.",
}


class ApiError(Exception):
    """
    An error object to answer.

    Args:
        code: The vendor's error code.
        status: HTTP status; 200 for all but code 17.
        details: Texts for the sibling `error_details`.
    """

    def __init__(self, code: int, status: int = 200, details: Sequence[str] = ()) -> None:
        super().__init__(f"{code} {TEXTS.get(code, '')}")
        self.code = code
        self.status = status
        self.details = tuple(details)


def error_object(code: int, text: str | None = None, details: Sequence[str] = ()) -> dict[str, object]:
    """Return the error object as section 4 shows it."""
    body: dict[str, object] = {
        "error": {"error_code": code, "error_msg": text or TEXTS.get(code, "Unknown error")}
    }
    if details:
        body["error_details"] = [{"error_msg": row} for row in details]
    return body
