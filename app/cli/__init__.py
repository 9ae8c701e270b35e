"""The `instream` command, one file a command."""
