"""Everything that is Redis: several gateways that share their streams and their queue."""
