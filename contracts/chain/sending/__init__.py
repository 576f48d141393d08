"""Transactions that survive crashes: written down, signed, sent, followed until they are deep."""
