"""What a healthy model is going to say to a request, and how it says it."""

from dataclasses import dataclass
from typing import Any

from gateway.demo import answers, shapes
from gateway.demo.asks import Ask
from gateway.demo.generation import Generation
from gateway.demo.models import Model
from gateway.demo.wire import RefusedError, dumps


@dataclass(frozen=True)
class Script:
    """Thinking, then text, then tool calls; any of them may be empty. `cut` means that `num_predict` ended it."""

    thought: list[str]
    said: list[str]
    calls: list[dict[str, Any]]
    cut: bool

    @classmethod
    def write(cls, ask: Ask, model: Model, seed: int) -> "Script":
        """A nonsensical schema or tool is a 500, as it is a crash of the grammar's parser in Ollama."""
        try:
            text, calls = _text_and_calls(ask, model, seed)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise RefusedError(500, "failed to parse grammar", late=ask.stream) from None
        for stop in filter(None, ask.options.get("stop") or []):
            text = text.partition(stop)[0]
        said, thought = answers.tokens(text), []
        if "thinking" in model.capabilities and ask.think is not False:
            thought = answers.tokens(answers.thinking(ask.messages))
        limit = int(ask.options.get("num_predict") or 0)
        if 0 < limit < len(thought) + len(said):
            return cls(thought[:limit], said[: max(0, limit - len(thought))], [], cut=True)
        return cls(thought, said, calls, cut=False)

    async def perform(self, generation: Generation, *, native: bool) -> None:
        if generation.ask.kind == "chat" or not self.thought:
            await generation.think(self.thought)
        elif native:  # generate with the GGUF's template: nobody tells thinking apart, its tags stay in the text
            await generation.say(["<think>", *self.thought, "</think>", "\n\n"])
        else:
            await generation.think(self.thought)
            if self.said:  # the closing tag and a blank line
                await generation.silent_token()
                await generation.silent_token()
        await generation.say(self.said)
        for call in self.calls:
            await generation.ponder(answers.tokens(dumps(call["function"]).decode()))
            if generation.ask.stream and not native:
                await generation.call([call])
        together = native or not generation.ask.stream
        await generation.done("length" if self.cut else "stop", self.calls if together else None)


def _text_and_calls(ask: Ask, model: Model, seed: int) -> tuple[str, list[dict[str, Any]]]:
    prompt = ask.last_text
    if ask.format:
        return shapes.json_answer(ask.format, prompt), []
    if ask.tools and ask.messages[-1].get("role") == "user":
        function = shapes.choose_tool(ask.tools, prompt)
        calls = shapes.tool_calls(function, shapes.subjects(prompt), native=model.native)
        return ("Let me check." if len(calls) > 1 else ""), calls
    return answers.answer(ask.messages, seed), []
