"""The join of a page view with the second event that follows it."""
