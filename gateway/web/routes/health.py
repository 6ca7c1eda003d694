"""Whether the process is alive, whether it can serve, and its metrics."""

from starlette.responses import JSONResponse, Response

from gateway.ops.metrics import CONTENT_TYPE
from gateway.web.state import GatewayRequest


async def healthz(request: GatewayRequest) -> JSONResponse:
    """The process is alive. Never depends on Ollama."""
    return JSONResponse({"status": "ok"})


async def readyz(request: GatewayRequest) -> JSONResponse:
    """A server answers and the gateway is not shutting down; otherwise 503 and the reason."""
    readiness = request.state["readiness"]
    problem = await readiness.problem()
    body: dict[str, object] = {"status": "unavailable" if problem else "ok"}
    if not request.state["keys"] or request.scope["key"] is not None:
        if problem:
            body["reason"] = problem
        body["servers"] = await readiness.servers()
    return JSONResponse(body, status_code=503 if problem else 200)


async def metrics(request: GatewayRequest) -> Response:
    """Prometheus metrics."""
    metrics = request.state["metrics"]
    metrics.set_servers(await request.state["readiness"].servers())
    return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE})
