"""Checks of everything that the gateway relies on in Ollama, asked through the gateway and directly."""
