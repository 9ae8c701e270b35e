"""`python -m tests.rig.tags`: the unmodified trackers of Snowplow and Segment against a collector, in headless Chromium."""
