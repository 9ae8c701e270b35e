"""Every format that is stored or sent, and the names of stored things."""
