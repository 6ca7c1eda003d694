"""Measures the gateway beside the direct connection, nginx and the app most people write. Linux only, for /proc."""
