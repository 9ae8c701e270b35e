"""The services that the local stack starts: Kafka, PostgreSQL, the AWS stand-in."""
