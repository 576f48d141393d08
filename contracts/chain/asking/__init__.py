"""Asking an Ethereum node: what it may be asked at once, and whether its answers are such."""
