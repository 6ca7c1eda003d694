"""The request bodies of the checks."""

import struct
import zlib
from base64 import b64encode
from uuid import uuid4

from tests.live.sides import Json

SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chat(model: str, prompt: str = "Why is the sky blue?", *, tokens: int = 16, **fields: object) -> Json:
    """A chat whose answer is the same each time and has at most this many tokens, none of them thinking."""
    options = {"seed": 7, "temperature": 0, "num_predict": tokens}
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "think": False,
        "options": options,
        **fields,
    }


def words(count: int) -> str:
    """A prompt of this many words with a unique beginning, so that Ollama has none of it in its cache."""
    return f"{uuid4()} " + "one two three four " * (count // 4)


def generate(model: str, prompt: str = "Why is the sky blue?", **fields: object) -> Json:
    """The same prompt as a body for `/api/generate`."""
    body = chat(model)
    del body["messages"]
    return {**body, "prompt": prompt, **fields}


def picture() -> str:
    """A PNG of 64 × 64 red pixels in base64."""

    def piece(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress((b"\0" + b"\xff\0\0" * 64) * 64)
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", pixels) + piece(b"IEND", b"")
    return b64encode(picture).decode()
