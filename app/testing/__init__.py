"""Parts for tests, ours and those of users: in-memory twins of every service."""
