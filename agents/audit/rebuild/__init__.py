"""Raw files through the core once more, offline: rows for another schema, or for a comparison."""
