"""`instream prove`: one batch, or all of an hour, from the registry to the rows in the warehouse."""
