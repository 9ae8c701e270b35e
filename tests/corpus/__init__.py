"""One sample of every format and version that was ever written, and how each is read: `README.md` says how to add one."""
