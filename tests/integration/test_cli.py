"""The commands against a real Postgres with pgstac, and against LocalStack."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
import yaml

from stacworker.cli import main
from stacworker.database import Database
from stacworker.ledger.schema import migrate_schema
from stacworker.ops.check_database import check_database
from stacworker.ops.grant import grant_ingest
from stacworker.ops.migrate import PgstacMigration, migrate_pgstac
from stacworker.testing.localstack import REGION, LocalStack
from stacworker.testing.postgres import Postgres
from tests.integration.aws import Queue

COLLECTION = {
    "type": "Collection",
    "stac_version": "1.0.0",
    "id": "tiles",
    "description": "Tiles.",
    "license": "CC0-1.0",
    "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    "links": [],
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run `stacworker …` in this process, and put its logging back."""
    handlers, level = logging.root.handlers[:], logging.root.level

    def call(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    yield call
    logging.root.handlers[:], logging.root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    """Write a settings file."""

    def write(**settings: Any) -> Path:
        path = tmp_path / "stacworker.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    return write


@pytest.fixture
def empty_dsn(postgres: Postgres) -> Iterator[str]:
    """Lend a database without pgstac."""
    name = postgres.create_database()
    yield postgres.dsn(name)
    postgres.drop_database(name)


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """Ask the database."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


MIGRATIONS = "SELECT version, name FROM stacworker.migrations ORDER BY version"


# -- migrate -----------------------------------------------------------------------------------------


def test_migrate_makes_the_schema_once(run, configured, pgstac_dsn):
    """The first run applies every migration, the second finds nothing to do, on both lines of pgstac."""
    config = configured(database={"dsn": pgstac_dsn})

    assert run("migrate", "--config", config) == Ran(0, "schema stacworker 0001 deletions: applied\n", "")
    assert run("migrate", "--config", config) == Ran(0, "schema stacworker: up to date\n", "")
    assert rows(pgstac_dsn, MIGRATIONS) == [(1, "deletions")]


def test_a_dry_run_changes_nothing(run, configured, empty_dsn):
    """`--dry-run` says what would be done, also on an empty database, and does none of it."""
    config = configured(database={"dsn": empty_dsn})

    assert run("migrate", "--pgstac", "--dry-run", "--config", config) == Ran(
        0, "pgstac 0.10.0: would be installed\nschema stacworker 0001 deletions: would be applied\n", ""
    )
    assert rows(empty_dsn, "SELECT to_regnamespace('pgstac'), to_regnamespace('stacworker')") == [(None, None)]


def test_migrate_needs_pgstac(run, configured, empty_dsn):
    """Without pgstac the schema is not made, and what to do is said."""
    assert run("migrate", "--config", configured(database={"dsn": empty_dsn})) == Ran(
        2, "", "stacworker: the database has no schema pgstac: run `stacworker migrate --pgstac`\n"
    )
    assert rows(empty_dsn, "SELECT to_regnamespace('stacworker')") == [(None,)]


def test_migrate_installs_pgstac_from_the_standard_variables(run, configured, postgres, empty_dsn, monkeypatch):
    """PG* variables are enough, and a password of special characters is passed on as it is."""
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(postgres.port))
    monkeypatch.setenv("PGUSER", "postgres")
    monkeypatch.setenv("PGPASSWORD", "p@ss w:rd/%?'\\")
    monkeypatch.setenv("PGDATABASE", empty_dsn.rsplit("/", 1)[-1])

    ran = run("migrate", "--pgstac", "--json", "--config", configured())

    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "dry_run": False,
        "pgstac": {"before": None, "after": "0.10.0"},
        "stacworker": ["0001 deletions"],
        "grant": None,
    }
    assert rows(empty_dsn, "SELECT pgstac.get_version()") == [("0.10.0",)]


def test_migrate_upgrades_pgstac_and_never_goes_back(run, configured, postgres):
    """An older pgstac is upgraded; an older target than what is there is refused."""
    with postgres.scratch("0.9.12") as name:
        config = configured(database={"dsn": postgres.dsn(name)})

        assert run("migrate", "--pgstac", "--config", config) == Ran(
            0, "pgstac 0.10.0: upgraded from 0.9.12\nschema stacworker 0001 deletions: applied\n", ""
        )
        assert run("migrate", "--pgstac", "--config", config) == Ran(
            0, "pgstac 0.10.0: already there\nschema stacworker: up to date\n", ""
        )
        assert run("migrate", "--pgstac", "--pgstac-version", "0.9.12", "--config", config) == Ran(
            2, "", "stacworker: pgstac 0.10.0 is there already and cannot go back to 0.9.12\n"
        )


def test_an_unsupported_pgstac_is_not_installed(run, configured, empty_dsn):
    """Only versions that can be loaded into are installed."""
    config = configured(database={"dsn": empty_dsn})

    ran = run("migrate", "--pgstac", "--pgstac-version", "0.8.6", "--config", config)

    assert ran.code == 2
    assert ran.err.startswith("stacworker: pgstac 0.8.6 cannot be installed: there are 0.9.0, ")


async def test_pgstac_is_installed_once_by_two_at_the_same_time(empty_dsn):
    """Two installers wait for each other; the second finds it done."""
    arguments = {"conninfo": empty_dsn}

    both = await asyncio.gather(*(asyncio.to_thread(migrate_pgstac, arguments) for _ in range(2)))

    assert sorted(both, key=str) == [PgstacMigration("0.10.0", "0.10.0"), PgstacMigration(None, "0.10.0")]


async def test_the_schema_is_made_once_by_many_at_the_same_time(pgstac_dsn):
    """Of several replicas that migrate at once, each migration is applied by one."""

    async def migrate() -> list[str]:
        async with Database(pgstac_dsn) as database:
            return [str(step) for step in await migrate_schema(database)]

    applied = await asyncio.gather(*(migrate() for _ in range(4)))

    assert sorted(applied) == [[], [], [], ["0001 deletions"]]
    assert rows(pgstac_dsn, MIGRATIONS) == [(1, "deletions")]


def test_a_newer_schema_is_refused(run, configured, pgstac_dsn):
    """An older stacworker leaves the schema of a newer one alone."""
    config = configured(database={"dsn": pgstac_dsn})
    run("migrate", "--config", config)
    with psycopg.connect(pgstac_dsn) as connection:
        connection.execute("INSERT INTO stacworker.migrations VALUES (9999, 'later')")

    assert run("migrate", "--config", config) == Ran(
        2,
        "",
        "stacworker: schema stacworker is at version 9999, this stacworker knows 1: "
        "use the newer stacworker that made it\n",
    )


def test_who_may_load_may_use_the_schema(run, configured, postgres, pgstac_dsn):
    """A member of pgstac_ingest may remember deletions, and change nothing else."""
    run("migrate", "--config", configured(database={"dsn": pgstac_dsn}))
    with psycopg.connect(pgstac_dsn) as connection:
        connection.execute("SET ROLE pgstac_ingest")
        connection.execute("INSERT INTO stacworker.deletions (collection, id, version_ms) VALUES ('a', 'b', 1)")
        assert connection.execute("SELECT sequencer FROM stacworker.deletions").fetchall() == [("",)]
        connection.execute("DELETE FROM stacworker.deletions")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO stacworker.migrations VALUES (2, 'mine')")


def test_a_database_that_is_away_is_one_line(run, configured):
    """Nobody listens: exit code 1, one line, at once."""
    config = configured(database={"dsn": "postgresql://me:hush@127.0.0.1:1/stac"})

    ran = run("migrate", "--config", config)

    assert (ran.code, ran.out) == (1, "")
    assert len(ran.err.splitlines()) == 1
    assert "hush" not in ran.err


def test_no_part_of_a_password_is_shown(run, configured):
    """A DSN that libpq cannot read is told without a word of it."""
    config = configured(database={"dsn": "postgresql://me:hush%zzhush@127.0.0.1:1/stac"})

    assert run("migrate", "--pgstac", "--config", config) == Ran(
        2, "", "stacworker: database.dsn cannot be read: percent-encode its special characters\n"
    )


# -- migrate --grant -----------------------------------------------------------------------------------


@pytest.fixture
def roles(postgres: Postgres) -> Iterator[Callable[..., str]]:
    """Make roles that log in, gone at the end. Roles are the whole cluster's, not a database's."""
    made: list[str] = []

    def make(name: str, options: str = "") -> str:
        postgres.execute(f"CREATE ROLE {quoted(name)} LOGIN {options}")
        made.append(name)
        return name

    yield make
    for name in made:
        postgres.execute(f"DROP ROLE {quoted(name)}")


async def of_database(dsn: str) -> set[str]:
    """Return how bad what `check` finds in the database is."""
    async with Database(dsn) as database:
        return {each.level for each in await check_database(database)}


def quoted(name: str) -> str:
    """Return a role's name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def test_who_was_granted_may_load(run, configured, roles, postgres, empty_dsn, tmp_path):
    """One run on a new database: pgstac, schema, grant; then the loader's own login checks out and loads."""
    loader = roles("loader")
    config = configured(database={"dsn": empty_dsn})
    all_of_it = ("migrate", "--pgstac", "--pgstac-version=0.10.0", f"--grant={loader}", "--config", config)

    assert run(*all_of_it) == Ran(
        0,
        "pgstac 0.10.0: installed\nschema stacworker 0001 deletions: applied\n"
        "role loader: made a member of pgstac_ingest\n",
        "",
    )
    assert run(*all_of_it) == Ran(
        0,
        "pgstac 0.10.0: already there\nschema stacworker: up to date\nrole loader: a member of pgstac_ingest already\n",
        "",
    )

    dsn = empty_dsn.replace("postgres@", f"{loader}@")
    (tmp_path / "tiles.json").write_text(json.dumps(COLLECTION))
    assert (checked := asyncio.run(of_database(dsn))) == {"ok"}, checked
    config = configured(database={"dsn": dsn})
    assert run("collections", "load", "--config", config, tmp_path / "tiles.json") == Ran(0, "tiles: created\n", "")


@pytest.mark.newest_pgstac
@pytest.mark.parametrize("name", ['we"ird', "Loader", "x; DROP SCHEMA pgstac CASCADE", "it's %I"])
def test_any_name_of_a_role_is_granted_to(run, configured, roles, pgstac_dsn, name):
    """Names are quoted by the database, whatever is in them."""
    ran = run("migrate", "--json", "--grant", roles(name), "--config", configured(database={"dsn": pgstac_dsn}))

    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["grant"] == {"role": name, "before": False}
    members = "SELECT member::regrole::text FROM pg_auth_members WHERE roleid = 'pgstac_ingest'::regrole"
    assert (name if name == "loader" else quoted(name),) in rows(pgstac_dsn, members)


@pytest.mark.newest_pgstac
def test_a_role_that_inherits_nothing_is_told_of(run, configured, roles, postgres, pgstac_dsn):
    """Being a member would not let it load: neither the grant nor a check says that all is well."""
    loader = roles("loader")
    postgres.execute("ALTER ROLE loader NOINHERIT")
    config = configured(database={"dsn": pgstac_dsn})

    assert run("migrate", "--grant", loader, "--config", config) == Ran(
        2,
        "",
        "stacworker: loader does not inherit the rights of the roles that it is a member of: run ALTER ROLE … INHERIT, "
        "then this again\n",
    )

    postgres.execute("GRANT pgstac_ingest TO loader")
    assert "error" in asyncio.run(of_database(pgstac_dsn.replace("postgres@", f"{loader}@")))
    postgres.execute("ALTER ROLE loader INHERIT")
    assert run("migrate", "--grant", loader, "--config", config).code == 0


def test_a_grant_to_nobody_changes_nothing(run, configured, empty_dsn):
    """A role that does not exist is found before anything is done, in a dry run too."""
    config = configured(database={"dsn": empty_dsn})
    for more in ((), ("--dry-run",)):
        assert run("migrate", "--pgstac", "--grant", "nobody", *more, "--config", config) == Ran(
            2,
            "",
            "stacworker: there is no role nobody to grant pgstac_ingest to: create it first (CREATE ROLE … LOGIN), "
            "and spell it as the database does, without quotes\n",
        )
    assert rows(empty_dsn, "SELECT to_regnamespace('pgstac'), to_regnamespace('stacworker')") == [(None, None)]


def test_a_dry_run_grants_nothing(run, configured, roles, pgstac_dsn):
    """`--dry-run` says that it would, and does not."""
    loader = roles("loader")
    config = configured(database={"dsn": pgstac_dsn})

    ran = run("migrate", "--grant", loader, "--dry-run", "--config", config)

    assert ran == Ran(
        0,
        "schema stacworker 0001 deletions: would be applied\nrole loader: would be made a member of pgstac_ingest\n",
        "",
    )
    assert rows(pgstac_dsn, "SELECT pg_has_role('loader', 'pgstac_ingest', 'MEMBER')") == [(False,)]


@pytest.mark.newest_pgstac
def test_who_may_not_grant_is_told_what_to_do(run, configured, roles, postgres, pgstac_dsn):
    """A migration's role without the right to grant: exit code 2, and the statement that helps."""
    run("migrate", "--config", configured(database={"dsn": pgstac_dsn}))
    loader, owner = roles("loader"), roles("owner", "IN ROLE pgstac_ingest")

    ran = run(
        "migrate",
        "--grant",
        loader,
        "--config",
        configured(database={"dsn": pgstac_dsn.replace("postgres@", f"{owner}@")}),
    )

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("stacworker: the migration's role may not grant pgstac_ingest (")
    assert "run `GRANT pgstac_ingest TO loader`" in ran.err


@pytest.mark.newest_pgstac
def test_a_role_that_pgstac_ingest_belongs_to_is_refused(run, configured, pgstac_dsn):
    """What would go in a circle is a wrong setting, and says so."""
    ran = run("migrate", "--grant", "pgstac_read", "--config", configured(database={"dsn": pgstac_dsn}))

    assert ran.code == 2
    assert ran.err.startswith("stacworker: pgstac_read cannot be a member of pgstac_ingest (")


@pytest.mark.newest_pgstac
async def test_two_that_grant_at_the_same_time_both_succeed(roles, pgstac_dsn):
    """The second finds it done: the database would refuse a role that two transactions change at once."""
    loader = roles("loader")

    async def grant() -> bool:
        async with Database(pgstac_dsn) as database:
            return (await grant_ingest(database, loader)).before

    assert sorted(await asyncio.gather(*(grant() for _ in range(4)))) == [False, True, True, True]


def test_an_owner_without_superpowers_migrates_and_grants(run, configured, roles, postgres):
    """The SQL of docs/kubernetes.md is all that it takes: its owner installs pgstac and lets its loader load."""
    page = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    server, inside = re.split(r"\\connect stac\n", re.sub(r"--.*", "", block))
    # Roles are the cluster's: here others have made pgstac's before, on a new database nobody has.
    with Postgres() as fresh:
        for statement in server.split(";")[:-1]:
            fresh.execute(statement)
        fresh.execute(inside, database="stac")
        config = configured(database={"dsn": fresh.dsn("stac", user="stac_owner")})
        for _ in range(2):
            ran = run("migrate", "--pgstac", "--pgstac-version=0.10.0", "--grant=stac_loader", "--config", config)
            assert (ran.code, ran.err) == (0, "")
        assert (checked := asyncio.run(of_database(fresh.dsn("stac", user="stac_loader")))) == {"ok"}, checked


# -- collections load --------------------------------------------------------------------------------


def test_collections_are_created_then_updated(run, configured, tmp_path, pgstac_dsn):
    """Collections come from single files, arrays, API answers and lines; loading again updates."""
    config = configured(database={"dsn": pgstac_dsn})
    files = {
        "one.json": json.dumps(COLLECTION | {"id": "a"}),
        "array.json": json.dumps([COLLECTION | {"id": "b"}, COLLECTION | {"id": "c"}]),
        "api.json": json.dumps({"collections": [COLLECTION | {"id": "d"}], "links": []}),
        "lines.ndjson": f"{json.dumps(COLLECTION | {'id': 'e'})}\n\n{json.dumps(COLLECTION | {'id': 'a'})}\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = [tmp_path / name for name in files]

    assert run("collections", "load", "--config", config, *paths) == Ran(
        0, "a: created\nb: created\nc: created\nd: created\ne: created\na: updated\n", ""
    )
    ran = run("collections", "load", "--json", "--config", config, paths[0])
    assert json.loads(ran.out) == [{"id": "a", "created": False, "origin": str(paths[0])}]
    assert rows(pgstac_dsn, "SELECT id FROM pgstac.collections ORDER BY 1") == [("a",), ("b",), ("c",), ("d",), ("e",)]


@pytest.mark.newest_pgstac
def test_collections_come_from_standard_input(run, configured, pgstac_dsn, monkeypatch):
    """`-` is one document, however it is laid out: so that a pod needs no file."""
    text = json.dumps([COLLECTION | {"id": "a"}, COLLECTION | {"id": "b"}], indent=2).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    ran = run("collections", "load", "--config", configured(database={"dsn": pgstac_dsn}), "-")

    assert ran == Ran(0, "a: created\nb: created\n", "")


def test_a_bad_collection_keeps_all_out(run, configured, tmp_path, postgres):
    """All files are checked before the first is written, and every bad one is named."""
    good, bad, ugly = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "ugly.json"
    good.write_text(json.dumps(COLLECTION))
    bad.write_text(json.dumps([COLLECTION, {"type": "Collection", "id": "b"}]))
    ugly.write_text("{")
    with postgres.scratch("0.10.0") as name:
        config = configured(database={"dsn": postgres.dsn(name)})

        unreadable = run("collections", "load", "--config", config, good, ugly)
        refused = run("collections", "load", "--config", config, good, bad)

        assert (unreadable.code, unreadable.out) == (2, "")
        assert unreadable.err.startswith(f"stacworker: {ugly}: not JSON: ")
        assert (refused.code, refused.out) == (2, "")
        assert f"{bad} collection 2" in refused.err
        assert rows(postgres.dsn(name), "SELECT count(*) FROM pgstac.collections") == [(0,)]


# -- check -------------------------------------------------------------------------------------------


@pytest.fixture
def on_localstack(localstack: LocalStack) -> dict[str, Any]:
    """Give the settings that reach LocalStack."""
    return {"aws": {"endpoint_url": localstack.endpoint_url, "region": REGION}}


def consumer(queue: Queue, *, suffix: str = "", **more: Any) -> dict[str, Any]:
    """Return the settings of one consumer."""
    return {"name": "items", "type": "load", "queue_url": f"{queue.url}{suffix}", **more}


def test_check_finds_nothing_wrong(run, configured, on_localstack, queue, pgstac_dsn):
    """Everything in its place: each line is ok, exit code 0, and no message was taken."""
    source = queue("items", max_receive_count=5)
    source._send(["waiting"], {}, None)
    config = configured(**on_localstack, database={"dsn": pgstac_dsn}, consumers=[consumer(source)])
    run("migrate", "--config", config)

    ran = run("check", "--json", "--config", config)

    found = json.loads(ran.out)
    assert [each for each in found["findings"] if each["level"] != "ok"] == []
    assert (ran.code, found["ok"], ran.err) == (0, True, "")
    assert [each["text"] for each in found["findings"] if each["subject"] in ("pgstac", "schema stacworker")] == [
        "up to date",
        f"version {rows(pgstac_dsn, 'SELECT pgstac.get_version()')[0][0]} can be loaded into",
    ]
    assert [received.receive_count for received in source._drain(1, 5)] == [1]


def test_check_finds_what_is_wrong(run, configured, on_localstack, queue):
    """Each thing that is wrong is a line that says what to do, and none hides the others."""
    source = queue("items")
    config = configured(
        **on_localstack,
        database={"dsn": "postgresql://nobody@127.0.0.1:1/stac"},
        consumers=[
            consumer(source),
            consumer(source, suffix="-gone", name="gone", type="tests.integration.test_cli:Nowhere"),
            consumer(source, suffix="-x", name="made", type="generate", output="s3://no-such-bucket-here/items/"),
            consumer(
                source,
                suffix="-y",
                name="sent",
                type="generate",
                output=f"sqs:{source.url}",
                output_overflow="s3://no-such-bucket-here/",
            ),
        ],
        generators={"s2": {"type": "stactools", "packages": ["stactools-nowhere==1.0"]}},
    )

    ran = run("check", "--json", "--config", config)

    found = {(each["level"], each["subject"]) for each in json.loads(ran.out)["findings"]}
    assert (ran.code, ran.err) == (1, "")
    assert found >= {
        ("ok", "queue of items"),
        ("warning", "dead letters of items"),
        ("error", "consumer gone"),
        ("error", "queue of gone"),
        ("error", "queue of made"),
        ("error", "output of made"),
        ("ok", "output of sent"),
        ("error", "output overflow of sent"),
        ("error", "database"),
        ("error", "pgstac"),
        ("error", "generator s2"),
    }


def test_check_warns_about_dead_letters(run, configured, on_localstack, queue, sqs):
    """A redrive policy that gives up at once, and dead letters that are kept too short, are warned about."""
    source = queue("items", max_receive_count=1)
    assert source.dead_letters is not None
    sqs.set_queue_attributes(QueueUrl=source.dead_letters.url, Attributes={"MessageRetentionPeriod": "86400"})
    config = configured(
        **on_localstack,
        consumers=[consumer(source, type="tests.integration.test_cli:Nothing")],
    )

    ran = run("check", "--config", config)

    assert ran.code == 0
    few = "the redrive policy's maxReceiveCount is 1: a restart or two dead-letter good messages; use 5"
    short = "keeps messages for 1 days, the queue itself for 4 days: set its MessageRetentionPeriod at least as high"
    assert [line for line in ran.out.splitlines() if line.startswith("warning")] == [
        f"warning  dead letters of items: {few}",
        f"warning  dead letters of items: {source.dead_letters.url} {short}",
    ]
    assert ran.out.splitlines()[-1].endswith("2 warnings, 0 errors")


def test_check_without_a_region_still_looks_at_the_database(run, configured, postgres, monkeypatch):
    """What cannot be reached hides nothing else."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    with postgres.scratch("0.10.0") as name:
        queue_url = "https://sqs.us-west-2.amazonaws.com/123456789012/items"
        consumers = [{"name": "items", "type": "load", "queue_url": queue_url}]
        config = configured(database={"dsn": postgres.dsn(name)}, consumers=consumers)

        ran = run("check", "--json", "--config", config)

    found = {(each["level"], each["subject"]) for each in json.loads(ran.out)["findings"]}
    assert ran.code == 1
    assert ("error", "aws") in found
    assert ("ok", "database") in found


def test_check_tells_wrong_settings(run, configured):
    """Wrong settings are findings too, one for each, with exit code 1."""
    ran = run("check", "--config", configured(htpp={}, http={"port": -1}))

    assert (ran.code, ran.err) == (1, "")
    assert [line[:14] for line in ran.out.splitlines()] == ["error    setti", "error    setti", "0 ok, 0 warnin"]


# -- send --------------------------------------------------------------------------------------------


def send(run: Run, localstack: LocalStack, *arguments: object) -> Ran:
    """Send to LocalStack."""
    return run("send", "--endpoint-url", localstack.endpoint_url, "--region", REGION, *arguments)


def test_files_are_sent(run, queue, tmp_path):
    """Every line and every JSON file arrives once, unchanged, and the rate is told."""
    items = queue("items")
    lines, single = tmp_path / "items.ndjson", tmp_path / "item.json"
    lines.write_text("".join(f'{{"id": "ü{number}"}}\n' for number in range(123)), encoding="utf-8")
    single.write_text('{\n"id": "single"\n}')

    ran = run("send", "--json", items.url, lines, single)

    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["sent"] == 124
    received = [message.body for message in items._drain(124, 20)]
    assert sorted(received) == sorted([*lines.read_text(encoding="utf-8").splitlines(), single.read_text()])


@pytest.mark.parametrize("files", [(), ("-",)], ids=["nothing", "dash"])
def test_standard_input_is_sent(run, localstack, queue, monkeypatch, files):
    """Without files, and for `-`, messages come from standard input."""
    items = queue("items")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))

    ran = send(run, localstack, items.url, *files)

    assert ran.code == 0
    assert ran.out.startswith("2 sent in ")
    assert sorted(message.body for message in items._drain(2, 10)) == ["one", "two"]


def test_what_is_not_sent_is_told(run, localstack, queue, tmp_path):
    """A message that cannot go is named with its file and line; the others go; exit code 1."""
    items = queue("items")
    file = tmp_path / "items.ndjson"
    file.write_bytes(b"good\n\xff\n")

    ran = send(run, localstack, items.url, file)

    assert ran.code == 1
    assert ran.err == f"{file}:2: not UTF-8 at byte 0: convert it\n"
    assert ran.out.startswith("1 sent, 1 not sent in ")
    assert [message.body for message in items._drain(1, 10)] == ["good"]


def test_sending_twice_to_a_fifo_queue_sends_once(run, localstack, queue, tmp_path):
    """The same command again within five minutes adds nothing to a FIFO queue, and the order is kept."""
    items = queue("items", fifo=True)
    file = tmp_path / "items.ndjson"
    file.write_text("".join(f"{number:02}\n" for number in range(25)))

    first = send(run, localstack, items.url, "--group-id", "g", file)
    second = send(run, localstack, items.url, "--group-id", "g", file)

    assert (first.code, second.code) == (0, 0)
    assert [message.body for message in items._drain(25, 20)] == [f"{number:02}" for number in range(25)]


def test_a_queue_that_is_not_there(run, localstack, queue, tmp_path):
    """A wrong queue URL is wrong usage, told in one line before anything is read."""
    file = tmp_path / "items.ndjson"
    file.write_text("a")

    ran = send(run, localstack, f"{queue('items').url}-gone", file)

    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert "NonExistentQueue" in ran.err or "QueueDoesNotExist" in ran.err


# -- the whole process -------------------------------------------------------------------------------


def test_the_installed_command_runs(tmp_path):
    """`python -m stacworker` is the same command, and a wrong setting ends it with 2."""
    file = tmp_path / "stacworker.yaml"
    file.write_text("consumers: []")

    assert asyncio.run(_run_process("run", "--config", str(file))) == (
        2,
        "stacworker: no consumers: name at least one queue under `consumers` (see `stacworker config example`)\n",
    )


async def _run_process(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stacworker", *arguments), stderr=asyncio.subprocess.PIPE, env=os.environ
    )
    _, err = await process.communicate()
    return process.returncode, err.decode()


class Nothing:
    """A consumer that does nothing."""

    async def handle(self, message: object) -> None: ...

    async def ping(self) -> None: ...
