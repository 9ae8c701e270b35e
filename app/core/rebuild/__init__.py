"""Raw batches through the core once more, without Kafka."""
