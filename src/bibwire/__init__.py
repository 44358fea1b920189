"""A live, correct copy of a timing company's RunSignup registrations in its own PostgreSQL."""

__version__ = "0.1.0"
