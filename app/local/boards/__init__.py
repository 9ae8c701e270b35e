"""The boards that an operator looks at: Grafana's pages for compose/, and Prometheus over a local stack."""
