"""The prompt as a model reads it: the conversation in its chat template, as one text and as token ids."""

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

TEMPLATE = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
"""As `/api/show` tells it. `render` does the same."""

VOCABULARY = 150_000


def render(messages: Sequence[dict[str, Any]]) -> str:
    """The conversation up to where the model goes on; an assistant's last message is left open to be continued."""
    text = "".join(
        f"<|im_start|>{message.get('role') or ''}\n{message.get('content') or ''}<|im_end|>\n" for message in messages
    )
    if messages and messages[-1].get("role") == "assistant":
        return text.removesuffix("<|im_end|>\n")
    return text + "<|im_start|>assistant\n"


def token_ids(tokens: Iterable[str]) -> list[int]:
    """The tokens' places in the vocabulary, which is the same for everybody who has the model."""
    return [crc32(token.encode()) % VOCABULARY for token in tokens]
