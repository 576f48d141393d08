"""Becoming a provider: registering, testing the machine, installing the service."""
