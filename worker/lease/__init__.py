"""One lease, from its discovery to its settlement."""
