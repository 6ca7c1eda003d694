"""Is the process alive, can it serve, what does it do."""

from starlette.responses import JSONResponse, Response

from gateway.metrics import CONTENT_TYPE
from gateway.state import GatewayRequest


async def healthz(request: GatewayRequest) -> JSONResponse:
    """The process is alive. Never depends on Ollama."""
    return JSONResponse({"status": "ok"})


async def readyz(request: GatewayRequest) -> JSONResponse:
    """Ollama answers and the gateway is not shutting down; else 503 and why."""
    problem = await request.state["readiness"].problem()
    if problem and request.state["keys"] and request.scope["key"] is None:
        return JSONResponse({"status": "unavailable"}, status_code=503)
    if problem:
        return JSONResponse({"status": "unavailable", "reason": problem}, status_code=503)
    return JSONResponse({"status": "ok"})


async def metrics(request: GatewayRequest) -> Response:
    """Prometheus metrics."""
    return Response(request.state["metrics"].render(), headers={"Content-Type": CONTENT_TYPE})
