"""Training a claimed stretch again, to see whether it gives what its provider signed for."""
