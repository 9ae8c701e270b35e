"""The HTTP server that takes events, makes them durable, and only then acknowledges them."""
