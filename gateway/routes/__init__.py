"""Handlers of a few lines: parse, call, respond. `state` is what they find on every request."""
