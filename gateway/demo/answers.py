"""What the simulated models say."""

import re
from zlib import crc32

_TOKEN = re.compile(r"[぀-ヿ一-鿿]{1,2}| ?[^\W\d_]{1,8}| ?\d{1,3}| ?[^\w\s]{1,3}|\s+|.", re.DOTALL)


def tokens(text: str) -> list[str]:
    """The text in word pieces, as a model's tokenizer would cut it. Joined they are the text again."""
    return _TOKEN.findall(text)


def answer(prompt: str, seed: int) -> str:
    return f"You asked: **{prompt}**. " + "This is a simulated answer. " * (
        3 + (crc32(prompt.encode()) + seed) % 5
    )


def thinking(prompt: str) -> str:
    return f"The user asks: {prompt}\n"
