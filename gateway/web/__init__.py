"""HTTP: the server, what every request must pass, and the handlers."""
