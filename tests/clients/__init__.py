"""Clients of the gateway: its own, and independent ones from npm and PyPI."""
