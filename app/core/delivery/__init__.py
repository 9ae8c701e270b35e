"""What is loaded together, by which statements, and how errors are classed."""
