"""What tests need, ours and those of users: in-memory twins of every service."""
