"""A local chain for development and tests, with the contracts on it."""
