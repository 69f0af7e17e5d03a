"""The HTTP server: FastAPI on uvicorn, inside the process's own event loop and signal handling."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel

from stacworker.errors import ConfigError
from stacworker.http.connections import MAX_HEAD_BYTES, Connection
from stacworker.http.status import Status

log = structlog.get_logger()

_BACKLOG = 128


class Health(BaseModel):
    """The answer of the health endpoints."""

    status: str
    """ok, or what is not."""
    reasons: list[str] = []
    """Why not, a line each."""


def create_app(status: Status, registry: CollectorRegistry) -> FastAPI:
    """Build the HTTP application."""
    app = FastAPI(
        title="stacworker",
        version="1",  # the interface's own, which is not the program's: that is told by /metrics alone
        summary="The daemon that keeps STAC catalogues current.",
        redoc_url=None,
    )

    @app.get("/livez", tags=["health"], responses={503: {"model": Health}})
    async def livez(response: Response) -> Health:
        """Tell whether the process is alive: its loop answers and its heartbeats beat. Never asks dependencies."""
        return _answer(response, "dead", status.dead())

    @app.get("/readyz", tags=["health"], responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """Tell whether work flows: queues are polled and every dependency answers."""
        return _answer(response, "not ready", status.not_ready())

    @app.get("/metrics", tags=["metrics"], response_class=Response)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _answer(response: Response, bad: str, reasons: list[str]) -> Health:
    response.headers["Cache-Control"] = "no-store"
    if reasons:
        response.status_code = 503
        return Health(status=bad, reasons=reasons)
    return Health(status="ok")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `stacworker.lifecycle`."""
        yield


@contextlib.asynccontextmanager
async def serving(app: FastAPI, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port. Raises ConfigError when it cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # now, not when uvicorn comes to it: who reads our log may ask at once
    except OSError as error:
        listener.close()
        raise ConfigError(f"http: cannot listen on {host}:{port}: {error.strerror}") from None
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    log.info("http.listening", host=host, port=port)
    try:
        yield port
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=5)
        task.cancel()
        listener.close()
