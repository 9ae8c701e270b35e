"""The step of one partition on cells and arrays: it makes what `app.core.etl.step` makes, in a fraction of the time."""
