"""What all parts of a running market share."""
