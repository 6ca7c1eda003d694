"""Translates standard input line by line: python translate.py [LANGUAGE] < text"""

import json
import os
import sys
from collections.abc import Iterator

import httpx
from httpx_sse import connect_sse

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8000")


def translate(text: str, language: str) -> Iterator[str]:
    """The pieces of the translation. Raises `RuntimeError` with the error's message."""
    query = {"preset": "translate", "variables.lang": language}
    with (
        httpx.Client(timeout=30) as client,
        connect_sse(client, "POST", f"{GATEWAY}/api/generate", params=query, json={"prompt": text}) as source,
    ):
        if source.response.is_error:
            raise RuntimeError(json.loads(source.response.read())["error"])
        for event in source.iter_sse():
            if event.event == "message" and event.data:
                line = json.loads(event.data)
                if "error" in line:
                    raise RuntimeError(line["error"])
                yield line["response"]


if __name__ == "__main__":
    language = sys.argv[1] if len(sys.argv) > 1 else "German"
    for line in filter(str.strip, sys.stdin):
        for piece in translate(line.strip(), language):
            print(piece, end="", flush=True)
        print()
