"""No secret comes out of the daemon, whatever goes wrong; and its children are left with nothing of it."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import structlog
import yaml
from psycopg import sql

from stacworker.cli import main
from stacworker.testing.localstack import LocalStack
from stacworker.testing.postgres import Postgres
from tests.integration.aws import MakeQueue, Queue
from tests.integration.canary import Canary
from tests.integration.pg import NEWEST
from tests.integration.strict_pg import StrictPostgres
from tests.integration.worker import Worker, catalogue_at, item, settings_for

MODULE = """
import json, os, sys, time
def create_items(request, api_key=None):
    asked = request["path"]
    if asked == "raise":
        raise ValueError(f"cannot: {dict(os.environ)} {json.dumps(dict(os.environ))}")
    if asked == "die":
        print(dict(os.environ), file=sys.stderr, flush=True)
        os._exit(1)
    return json.loads(asked)

class Failing:
    def __init__(self, options):
        self.options = options
    async def handle(self, message):
        api_key = self.options["api_key"]
        raise RuntimeError("no")
    async def ping(self):
        pass

from pydantic import BaseModel
class Strict(Failing):
    class Options(BaseModel):
        api_key: int
"""


# Commands that fail in this process may leave a connection to the garbage collector, which ends with them elsewhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Put logging back where a command has set it up, and collect what it has left."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    gc.collect()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


class Secrets:
    """The canaries of one test."""

    def __init__(self) -> None:
        self.password = Canary(odd=True)
        self.aws_key = Canary()
        self.aws_token = Canary()
        self.secret = Canary(odd=True)
        self.api_key = Canary(odd=True)
        self.gen_token = Canary(odd=True)

    @property
    def environ(self) -> dict[str, str]:
        """What the daemon finds in its environment."""
        return {
            "AWS_SECRET_ACCESS_KEY": self.aws_key.value,
            "AWS_SESSION_TOKEN": self.aws_token.value,
            "GEN_TOKEN": self.gen_token.value,
            "PGPASSWORD": self.password.value,
        }

    def told_in(self, texts: Mapping[str, str]) -> list[str]:
        """Return where which of them came out."""
        return [
            f"{name} in {place}: {line}"
            for name, canary in vars(self).items()
            for place, text in texts.items()
            for line in canary.found_in(text)
        ]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Make canaries, and put them in the environment."""
    made = Secrets()
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    return made


async def letters_of(*queues: Queue) -> str:
    found = []
    for queue in queues:
        assert queue.dead_letters is not None
        found += await queue.dead_letters.drain(timeout_s=0)
    return "\n".join(repr(letter) for letter in found)


def command_lines(pid: int) -> str:
    """Return the command lines of a process and of those that it started."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    assert len(family) > 1
    return "\n".join(lines[member] for member in family)


async def test_no_secret_comes_out_of_a_running_daemon(
    tmp_path: Path, localstack: LocalStack, postgres: Postgres, queue: MakeQueue, secrets: Secrets
) -> None:
    """Not while it works, when messages, generators and plugins fail, in an outage, and at its end; at log level debug.

    Everything is searched that leaves the process: its log, its pages, its dead letters, its command lines.
    """
    (tmp_path / "canary_module.py").write_text(MODULE)
    role = f"canary_{os.getpid()}"
    items, requests, plugged = (queue(name, max_receive_count=1) for name in ("items", "requests", "plugged"))
    with postgres.scratch(NEWEST) as database, psycopg.connect(postgres.dsn(database), autocommit=True) as admin:
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal("any"))
        admin.execute(create)
        admin.execute(sql.SQL("GRANT pgstac_ingest TO {}").format(sql.Identifier(role)))
        password = quote(secrets.password.value, safe="")
        settings = settings_for(
            f"postgresql://{role}:{password}@127.0.0.1:{postgres.port}/{database}",
            localstack,
            {"name": "items", "type": "load", "queue_url": items.url},
            {"name": "requests", "type": "generate", "queue_url": requests.url},
            {
                "name": "plugged", "type": "canary_module:Failing", "queue_url": plugged.url,
                "options": {"api_key": secrets.api_key.value},
            },
            generators={
                "mine": {
                    "type": "canary_module:create_items", "processes": 1, "env": ["GEN_TOKEN"],
                    "options": {"api_key": secrets.api_key.value},
                }
            },
            log={"level": "debug", "format": "json"},
        )  # fmt: skip
        running = Worker(tmp_path, settings, {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)})
        async with catalogue_at(postgres.dsn(database)) as catalogue:
            await catalogue.add_collection("things")
            try:
                await running.start()
                told = {"command lines": command_lines(running.pid)}
                await items.send(json.dumps(item("good")), json.dumps(item("bad", "absent")), "no message at all")
                await plugged.send("x")
                asked = [json.dumps(item("made")), "raise", "die"]
                await requests.send(*(json.dumps({"id": path[:5], "path": path}) for path in asked))
                await catalogue.until_count("things", 2)
                await running.until(lambda: running.outcomes() == {"acked": 2, "dead_lettered": 5})
                told["dead letters"] = await letters_of(items, requests, plugged)
                admin.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])
                await items.send(json.dumps(item("later")))
                await running.until(lambda: running.get("/readyz")[0] == 503)
                for page in ("/readyz", "/livez", "/metrics", "/openapi.json", "/docs", "/nothing"):
                    told[page] = running.get(page)[1]
                assert await running.stop() == 0
                told["log"] = running.log_file.read_text()
            finally:
                running.cleanup()
                admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)).as_string())
    assert "is not permitted to log in" in told["/readyz"]
    assert told["dead letters"].count("generator_") == 2
    assert "GEN_TOKEN" in told["dead letters"]
    assert '"event":"message.unexpected_error"' in told["log"]
    assert secrets.told_in(told) == []


Case = Callable[[StrictPostgres, Secrets], dict[str, Any]]


def _dsn(password: str, rest: str, user: str = "nobody_known") -> dict[str, Any]:
    return {"database": {"dsn": f"postgresql://{user}:{quote(password, safe='')}@{rest}"}}


FAILURES: dict[str, Case] = {
    "wrong password": lambda strict, s: _dsn(s.password.value, f"127.0.0.1:{strict.server.port}/postgres", "tls_only2"),
    "nobody there": lambda _, s: _dsn(s.password.value, "127.0.0.1:1/db"),
    "no such host": lambda _, s: _dsn(s.password.value, "no-such-host.invalid/db"),
    "no such database": lambda strict, s: _dsn(s.password.value, f"127.0.0.1:{strict.server.port}/absent", "postgres"),
    "no pgstac": lambda strict, s: _dsn(s.password.value, f"127.0.0.1:{strict.server.port}/postgres", "postgres"),
    "untrusted server": lambda strict, s: _dsn(
        s.password.value,
        f"localhost:{strict.server.port}/d?sslmode=verify-full&sslrootcert={strict.stranger.path}",
    ),
    "a DSN that is not encoded": lambda _, s: {"database": {"dsn": f"postgresql://u:{s.password.value}@h/d"}},
    "a DSN of keywords": lambda _, s: {"database": {"dsn": f"host=127.0.0.1 password='{s.password.value}' user=u"}},
    "a DSN that is a password": lambda _, s: {"database": {"dsn": s.password.value}},
    "a DSN in the place of its section": lambda _, s: {"database": f"postgresql://u:{s.password.word}@h/d"},
    "a password that is no setting": lambda _, s: {"database": {"host": "h", "password": s.password.value}},
    "a password in the environment alone": lambda _, __: {"database": {}},
    "options of another type": lambda _, s: {"consumers": [{"type": "canary_module:Strict", "options": vars_of(s)}]},
    "options that nobody takes": lambda _, s: {
        "generators": {"mine": {"type": "canary_module:create_items", "options": {"other_token": s.api_key.value}}},
        "consumers": [{"type": "generate"}],
    },
    "an endpoint with a password": lambda _, s: {"aws": {"endpoint_url": f"http://u:{s.secret.word}@127.0.0.1:1"}},
    "a region that is none": lambda _, s: {"aws": {"region": s.secret.value}},
    "an endpoint that is none": lambda _, s: {"aws": {"endpoint_url": f"u:{s.secret.value}"}},
    "no such secret": lambda _, __: {
        "database": {"secret_arn": "arn:aws:secretsmanager:us-east-1:000000000000:secret:no"}
    },
}


def vars_of(secrets: Secrets) -> dict[str, str]:
    return {"api_key": secrets.api_key.value}


@pytest.mark.parametrize("name", FAILURES)
def test_no_secret_comes_out_of_what_fails(
    name: str,
    tmp_path: Path,
    localstack: LocalStack,
    strict_postgres: StrictPostgres,
    queue: MakeQueue,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However the start goes wrong, with tracebacks and at log level debug; nor do other commands tell one."""
    monkeypatch.setattr("stacworker.app.hide_memory", lambda: None)  # this process is the tests' own
    monkeypatch.setattr("stacworker.parts.START_TIMEOUT_S", 0.0)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "canary_module.py").write_text(MODULE)
    consumer = {"name": "items", "type": "load", "queue_url": queue().url}
    settings = settings_for("", localstack) | {"log": {"level": "debug"}, "http": {"enabled": False}}
    settings |= {"database": {}, "consumers": [consumer], **FAILURES[name](strict_postgres, secrets)}
    settings["consumers"] = [consumer | changes for changes in settings["consumers"]]
    config = tmp_path / "stacworker.yaml"
    config.write_text(yaml.safe_dump(settings))
    told, codes = {}, {}
    # Where nobody answers for AWS, every command waits for the same.
    commands = ("run", "config show") if "endpoint" in name else ("run", "check", "config show", "migrate --pgstac")
    for command in commands:
        codes[command] = main(["--debug", *command.split(), "--config", str(config)])
        told[command] = "\n".join(capsys.readouterr())
    assert secrets.told_in(told) == []
    assert codes["run"] in (1, 2)
    assert all(told.values())


@pytest.mark.parametrize(
    "text", ["{value}", '{{"username": "u", "password": {json}}}', '["{word}"]', '{{"port": {json}}}']
)
def test_no_word_of_a_bad_secret_comes_out(
    text: str,
    tmp_path: Path,
    localstack: LocalStack,
    secretsmanager: Any,
    queue: MakeQueue,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A secret in Secrets Manager that is none of a database is told by what is missing."""
    monkeypatch.setattr("stacworker.app.hide_memory", lambda: None)
    canary = secrets.secret
    string = text.format(value=canary.value, word=canary.word, json=json.dumps(canary.value))
    arn = secretsmanager.create_secret(Name=f"database-{canary.word[4:9]}", SecretString=string)["ARN"]
    settings = settings_for("", localstack, {"name": "items", "type": "load", "queue_url": queue().url})
    config = tmp_path / "stacworker.yaml"
    config.write_text(yaml.safe_dump(settings | {"database": {"secret_arn": arn}, "http": {"enabled": False}}))
    code = main(["--debug", "run", "--config", str(config)])
    told = "\n".join(capsys.readouterr())
    assert code == 2
    assert "stacworker: database.secret_arn: the secret" in told
    assert secrets.told_in({"run": told}) == []


PROBE = """
import ctypes, json, os, resource, subprocess, sys, time
LOOK = "import os; open(f'/proc/{os.getppid()}/environ', 'rb').read()"
def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
def look(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return len(file.read(16))
    except OSError as error:
        return type(error).__name__
def attach(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    return libc.ptrace(0x4206, pid, 0, 0)  # PTRACE_SEIZE, which stops nobody
def visible(pid):
    return {"attach": attach(pid), **{name: look(pid, name) for name in ("environ", "fd/1", "maps", "mem")}}
def kind(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]
    except OSError:
        return "closed"
def create_items(request):
    if request["path"] == "hang":
        time.sleep(600)
    return {
        "id": "probe", "daemon": parent_of(os.getppid()), "environ": sorted(os.environ),
        "descriptors": [kind(fd) for fd in sorted(map(int, os.listdir("/proc/self/fd")))],
        "of_the_daemon": visible(parent_of(os.getppid())), "of_the_guard": visible(os.getppid()),
        "of_a_child": subprocess.run([sys.executable, "-c", LOOK], capture_output=True).stderr.decode(),
        "core": resource.getrlimit(resource.RLIMIT_CORE), "leader": os.getsid(0) == os.getpid(),
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY,
    }
"""


def workspaces_in(folder: Path) -> set[Path]:
    return set(folder.glob("stacworker-children-*"))


async def test_children_get_nothing_of_the_daemon(
    tmp_path: Path, localstack: LocalStack, queue: MakeQueue, secrets: Secrets
) -> None:
    """No variable, no descriptor, no look into its memory, no core dump; what they left at a kill -9 is removed."""
    (tmp_path / "probe_module.py").write_text(PROBE)
    requests, target = queue("requests", max_receive_count=5, visibility_timeout_s=2), queue("target")
    settings = settings_for(
        "postgresql://u@127.0.0.1:1/d",
        localstack,
        {
            "name": "requests", "type": "generate", "queue_url": requests.url, "output": f"sqs:{target.url}",
            "visibility_timeout_s": 2,
        },
        generators={"probe": {"type": "probe_module:create_items", "processes": 1, "env": ["GEN_TOKEN"]}},
    )  # fmt: skip
    environ = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path), "STACWORKER_DATABASE__MAX_CONNECTIONS": "3"}
    # Root may look into every process; without its capabilities it is a user like others.
    prefix = [str(shutil.which("setpriv")), "--bounding-set=-all"] if os.geteuid() == 0 else []
    workers = [Worker(tmp_path, settings, environ, name=name, prefix=prefix) for name in ("first", "second")]
    try:
        await workers[0].start()
        await requests.send(json.dumps({"id": "a", "path": "probe"}))
        (message,) = await target.drain(1, timeout_s=30)
        probe = json.loads(message.body)
        assert probe.pop("daemon") == workers[0].pid
        hidden = {"attach": -1, **dict.fromkeys(("environ", "fd/1", "maps", "mem"), "PermissionError")}
        names = probe.pop("environ")
        assert "PermissionError" in probe.pop("of_a_child")
        assert {"GEN_TOKEN", "PATH", "TMPDIR"} <= set(names)
        assert [name for name in names if name.startswith(("AWS_", "PG", "STACWORKER_"))] == []
        # nothing, output twice, the socket to the daemon, and the listing itself, closed by then
        assert sorted(probe.pop("descriptors")) == ["/dev/null", "closed", "pipe", "pipe", "socket"]
        assert probe == {
            "id": "probe",
            "of_the_daemon": hidden,
            "of_the_guard": hidden,
            "core": [0, 0],
            "leader": True,
            "memory": True,
        }
        await requests.send(json.dumps({"id": "b", "path": "hang"}))
        await workers[0].until(lambda: workers[0].metric("in_flight_messages") == 1)
        await workers[0].kill()
        abandoned = workspaces_in(tmp_path)
        assert len(abandoned) == 1
        await workers[1].start()
        assert abandoned & workspaces_in(tmp_path) == set()
    finally:
        for worker in workers:
            worker.cleanup()
