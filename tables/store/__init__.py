"""RocksDB behind the partition state."""
