"""How a stream is spelled on the wire. Pure: bytes in, bytes out."""
