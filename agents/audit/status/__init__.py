"""What `instream status` sees: the processes, the roles' answers, the services, and the way of the data."""
