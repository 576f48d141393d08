"""This computer: what it has, and whether its owner wants it to work."""
