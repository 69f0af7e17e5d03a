"""`stacworker healthcheck`."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from stacworker.errors import ConfigError
from stacworker.ops.healthcheck import Address, find_address
from tests.unit.cli.conftest import Ran


class _Worker(http.server.BaseHTTPRequestHandler):
    """Lives, and is not ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()
        self.wfile.write(b"alive" if self.path == "/livez" else b"draining")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Lend a port on which something answers as a worker does."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Worker) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_living_worker_is_healthy(run, monkeypatch, port):
    """Exit code 0 when /livez answers 200 on the port of the settings."""
    monkeypatch.setenv("STACWORKER_HTTP__PORT", str(port))

    assert run("healthcheck") == Ran(0, "alive\n", "")


def test_readiness_can_be_asked_for(run, port):
    """`--ready` asks /readyz, and a 503 is a failure that says why."""
    assert run("healthcheck", "--ready", "--port", port) == Ran(
        1, "", f"stacworker: http://127.0.0.1:{port}/readyz: 503 Service Unavailable: draining\n"
    )


def test_no_answer_is_unhealthy(run, port, monkeypatch):
    """Exit code 1 when nobody listens."""
    monkeypatch.setattr("http.client.HTTPConnection.connect", _refuse)

    assert run("healthcheck", "--port", port) == Ran(
        1, "", f"stacworker: http://127.0.0.1:{port}/livez does not answer: ConnectionRefusedError: refused\n"
    )


def _refuse(*_: object) -> None:
    raise ConnectionRefusedError("refused")


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, Address("127.0.0.1", 8080)),
        ({"STACWORKER_HTTP__PORT": "9"}, Address("127.0.0.1", 9)),
        ({"stacworker_http__port": "9"}, Address("127.0.0.1", 9)),
        ({"STACWORKER_HTTP": '{"port": 9, "host": "::"}'}, Address("::1", 9)),
        ({"STACWORKER_HTTP": '{"port": 9}', "STACWORKER_HTTP__PORT": "10"}, Address("127.0.0.1", 10)),
        ({"STACWORKER_HTTP__HOST": "10.0.0.1"}, Address("10.0.0.1", 8080)),
    ],
)
def test_where_the_worker_listens(environ, address):
    """The address is that of the settings; an address for all interfaces means this machine."""
    assert find_address(environ) == address


def test_the_file_gives_the_port(tmp_path):
    """A settings file counts as for `run`, and the environment wins over it."""
    file = tmp_path / "stacworker.yaml"
    file.write_text("http: {port: 7, host: 127.0.0.2}")

    assert find_address({"STACWORKER_CONFIG": str(file)}) == Address("127.0.0.2", 7)
    assert find_address({"STACWORKER_HTTP__PORT": "8"}, file) == Address("127.0.0.2", 8)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"STACWORKER_HTTP__PORT": "x"}, "http.port: give a number"),
        (
            {"STACWORKER_HTTP__PORT": "0"},
            "http.port is 0, a port chosen at start: give --port with the one that the worker logged",
        ),
        (
            {"STACWORKER_HTTP__ENABLED": "false"},
            "http.enabled is false: the worker opens no port that could be asked",
        ),
        ({"STACWORKER_HTTP": "[]"}, 'STACWORKER_HTTP: give a JSON object, such as {"port": 8080}'),
    ],
)
def test_an_address_that_cannot_be_known(environ, problem):
    """What makes the port unknown is a wrong setting, not a sick worker."""
    with pytest.raises(ConfigError) as caught:
        find_address(environ)

    assert caught.value.problems == (problem,)
