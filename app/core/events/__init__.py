"""What a client may send: fields, their rules, and how a request body becomes lines."""
