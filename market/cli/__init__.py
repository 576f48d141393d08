"""Commands of who runs a market."""
