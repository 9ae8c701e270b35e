"""The embedded stack: real Kafka, PostgreSQL behind a Redshift stand-in, the AWS stand-in, and their supervisor."""
