"""What the gateway takes over from sse-starlette, and the one thing that it does itself."""

import inspect

from sse_starlette.sse import EventSourceResponse

from gateway.web.streaming import EventResponse


def test_only_the_send_loop_is_overridden() -> None:
    """A release of the package that calls it otherwise, or keeps its state elsewhere, fails here first."""
    own = {name for name in vars(EventResponse) if not name.startswith("__")}
    assert own & set(dir(EventSourceResponse)) == {"_stream_response"}
    assert list(inspect.signature(EventSourceResponse._stream_response).parameters) == ["self", "send"]
    assert {"active", "_send_lock"} <= vars(EventSourceResponse(iter(()))).keys()
