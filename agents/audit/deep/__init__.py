"""The deep audit: it recounts registry, raw files, chains, data files, manifests and the warehouse's rows."""
