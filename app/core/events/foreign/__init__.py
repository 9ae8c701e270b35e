"""Events in the forms of other tags, as lines in our own public form: Snowplow, Segment, and a pixel's query.

A module here reads one form. It never parses or checks a field: the line that it makes goes through
`app.core.events.parse` like every line of `POST /v1/events`. An event for which there is no type of ours becomes a line that
is malformed, with a reason that names it, and so it is kept in flow `rejected`.
"""
