"""The local stack as a whole: start, restart, stop, and its description in stack.json."""
