"""The outside world behind ports: each adapter has an in-memory twin that passes the same contract suite."""
