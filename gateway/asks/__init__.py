"""What a client may ask, and what the operator makes of it."""
