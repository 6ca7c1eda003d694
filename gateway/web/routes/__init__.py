"""The routes, and their handlers of a few lines: parse, call, respond."""
