"""What is complete, what is missing, what is sent again."""
