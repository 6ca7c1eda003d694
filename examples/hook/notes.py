"""A hook that refuses a banned topic, and gives the model the notes that share words with the question."""

import logging
import re
from pathlib import Path
from typing import Any

from gateway.hooks import HookRequest, Rejected, texts

BANNED = re.compile(r"\b(password|passwords)\b", re.IGNORECASE)
NOTES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "notes").glob("*.txt"))}
BEST = 2

logger = logging.getLogger(__name__)


async def shape(request: HookRequest) -> dict[str, Any]:
    """The client's body, with the best notes before its newest question. Nothing in it may be about passwords."""
    if any(map(BANNED.search, texts(request.body))):
        raise Rejected("I do not talk about passwords. Please ask the help desk.", code="banned_topic")
    if request.kind == "chat":
        asked = [message for message in request.body.get("messages") or [] if message["role"] == "user"]
        holder, field = (asked[-1] if asked else {}), "content"
    else:
        holder, field = request.body, "prompt"
    question = holder.get(field) or ""
    if notes := _retrieve(question):
        logger.info("notes for %s: %s", request.headers.get("x-user", "somebody"), ", ".join(notes))
        text = "\n\n".join(NOTES[name].strip() for name in notes)
        holder[field] = f"Answer from these notes if they help.\n\n{text}\n\nQuestion: {question}"
    return request.body


def _retrieve(question: str) -> list[str]:
    """The names of the notes that share the most words with the question, best first."""
    words = _words(question)
    scores = {name: len(words & _words(text)) for name, text in NOTES.items()}
    return sorted((name for name in scores if scores[name]), key=lambda name: -scores[name])[:BEST]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{4,}", text.lower()))
