"""The bridge: Kinesis to Kafka."""
