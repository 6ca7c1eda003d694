"""Generations and their logs: started, queued, watched, read and stopped."""
