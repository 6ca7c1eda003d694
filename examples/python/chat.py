"""Asks a question and streams the answer: python chat.py [QUESTION]    Ctrl+C stops the model."""

import json
import os
import sys
from collections.abc import Iterator

import httpx
from httpx_sse import connect_sse

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8000")


def chat(prompt: str) -> Iterator[str]:
    """The pieces of the answer. Raises `RuntimeError` with the error's message."""
    body = {"messages": [{"role": "user", "content": prompt}]}
    with httpx.Client(timeout=30) as client, connect_sse(client, "POST", f"{GATEWAY}/api/chat", json=body) as source:
        if source.response.is_error:
            raise RuntimeError(json.loads(source.response.read())["error"])
        for event in source.iter_sse():
            if event.event == "message" and event.data:
                line = json.loads(event.data)
                if "error" in line:
                    raise RuntimeError(line["error"])
                yield line["message"]["content"]


if __name__ == "__main__":
    for piece in chat(" ".join(sys.argv[1:]) or "Why is the sky blue?"):
        print(piece, end="", flush=True)
    print()
