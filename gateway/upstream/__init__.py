"""Ollama: its servers, its models and its wire. Exceptions of the HTTP client stop here."""
