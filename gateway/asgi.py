"""The gateway for another ASGI server: `uvicorn gateway.asgi:app --workers 4`.

`python -m gateway` does more: it bounds requests, finds dead clients, and drains its streams when it stops.
"""

import multiprocessing
import os
import signal
import sys

from starlette.applications import Starlette

from gateway.app import create_app
from gateway.ops import journal
from gateway.settings import ConfigurationError, load


def _create() -> Starlette:
    try:
        settings = load()
        if multiprocessing.parent_process() is not None and not settings.redis_url:
            raise ConfigurationError(
                "GATEWAY_REDIS_URL: several workers need a Redis: without it each worker has its own streams, and a "
                "reconnect to another worker finds nothing."
            )
        journal.configure(settings.log_format, settings.log_level)
        return create_app(settings)
    except ConfigurationError as error:
        print(f"ollama-sse-gateway: {error}", file=sys.stderr, flush=True)
        if multiprocessing.parent_process() is not None:
            os.kill(os.getppid(), signal.SIGTERM)  # otherwise uvicorn would start this worker again and again
        raise SystemExit(2) from None


app = _create()
