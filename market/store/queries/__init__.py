"""What is asked of the tables, each question in one place."""
