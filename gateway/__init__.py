"""A Server-Sent Events gateway for Ollama."""

__version__ = "0.1.0"
