"""The shell around the decisions: our Faust, its worker process, one runner a partition, the ports it hands out."""
