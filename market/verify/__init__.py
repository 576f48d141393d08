"""Checks an epoch that a market has published against signatures, the chain and the auction's own certificate.

`verify.verify` needs the extra `verify`. This file imports nothing: clients look at epochs without it.
"""
