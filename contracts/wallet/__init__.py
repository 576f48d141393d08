"""The keys of a party, encrypted in its home."""
