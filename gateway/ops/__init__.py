"""What the operator sees: metrics, logs and health."""
