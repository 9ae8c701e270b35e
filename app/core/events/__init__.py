"""The events that clients send: fields and their rules, and the way from a request body to lines."""
