"""Run every panel's and every rule's expression against a real Prometheus that scrapes real workers under load.

    python -m tests.prometheus [--pictures]

`--pictures` draws the dashboards anew in docs/pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psycopg
import pytest

from deploy.grafana.make import out_of_step, wanted
from tests.prometheus import expressions, pictures, server
from tests.prometheus.expressions import ALL, RULE_FILES, RULES, Asked
from tests.prometheus.server import Failed, Prometheus
from tests.prometheus.site import NEVER_UP, Site, site_in
from tests.prometheus.workload import send_for

_LOAD_S = 45.0
_AFTER_S = 12.0
_PICTURES = expressions.ROOT / "docs" / "pictures"
_RUNBOOKS = expressions.ROOT / "docs" / "runbooks"
_TARGETS = "instance:stacworker_up:avg5m"


class Report:
    """What was asked and what was wrong; prints as it goes."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line with the time."""
        sys.stdout.write(f"{time.monotonic() - self._started:5.1f} s  {text}\n")
        sys.stdout.flush()

    def wrong(self, text: str) -> None:
        """Note a problem."""
        self.problems.append(text)
        self.say(f"WRONG  {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when every expression has an answer."""
    parser = argparse.ArgumentParser(prog="scripts/prometheus", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", action="store_true", help="draw the dashboards anew in docs/pictures")
    arguments = parser.parse_args(argv)
    report = Report()
    try:
        asyncio.run(_run(report, draw=arguments.pictures))
    except (Failed, pytest.fail.Exception) as error:
        report.wrong(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        report.say("interrupted")
        return 130
    count = len(report.problems)
    report.say(f"{count} problems" if count else "every expression has an answer")
    return 1 if count else 0


async def _run(report: Report, *, draw: bool) -> None:
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    for path in out_of_step(wanted()):
        report.wrong(f"{path.name} is out of step: run python -m deploy.grafana.make")
    report.say(server.promtool("check", "rules", *RULE_FILES, cwd=RULES).replace("\n", " "))
    report.say(server.promtool("test", "rules", "tests.yaml", cwd=RULES).replace("\n", " "))
    with tempfile.TemporaryDirectory(prefix="stacworker-prometheus-") as scratch:
        async with site_in(Path(scratch)) as site:
            await _watch(report, site, Path(scratch), draw=draw)


async def _watch(report: Report, site: Site, scratch: Path, *, draw: bool) -> None:
    report.say("two workers are ready")
    config = server.configuration([RULES / name for name in RULE_FILES], site.targets())
    with server.running(scratch, config) as prometheus:
        server.promtool("check", "config", "prometheus.yml", cwd=scratch)
        server.promtool("check", "config", "prometheus.yml", cwd=RULES)
        started = time.time()
        await send_for(_LOAD_S, site.world, site.items, site.requests)
        report.say(f"{int(site.plain.metric('messages_received_total'))} messages received by one of the workers")
        server.promtool("check", "metrics", cwd=scratch, text=site.plain.get("/metrics")[1])
        asked = [*expressions.of_panels(), *expressions.of_rules()]
        _all_answered(report, prometheus, [each for each in asked if each.needs == "load"], "under load")
        _variables(report, prometheus)
        _chosen(report, prometheus)
        _rules_are_well(report, prometheus)
        down = _jobs_down(prometheus, _TARGETS)
        report.say(f"down under load: {', '.join(down) or 'none'}")
        if down != [NEVER_UP]:
            report.wrong(f"StacworkerTargetDown sees {down} instead of {NEVER_UP}")
        _queries_of_runbooks(report, prometheus, site.dsn)
        await _outage(report, site, prometheus, [each for each in asked if each.needs == "outage"])
        if draw:
            _draw(report, prometheus, started)
        await _end(report, site, prometheus, [each for each in asked if each.needs == "silence"])


def _all_answered(report: Report, prometheus: Prometheus, asked: Iterable[Asked], when: str) -> None:
    """Ask everything; an error and an empty answer are wrong."""
    asked = list(asked)
    still = []
    for each in asked:
        try:
            found = prometheus.query(each.text)
        except Failed as error:
            report.wrong(f"{each.where}: {error}: {each.text}")
            continue
        if not found:
            report.wrong(f"{each.where}: empty {when}: {each.text}")
        elif not each.where.startswith("rule ") and all(float(series["value"][1]) == 0 for series in found):
            still.append(each.where.removeprefix("stacworker / "))
    report.say(
        f"{len(asked)} expressions asked {when}; of panels answered with zero only: {'; '.join(still) or 'none'}"
    )


def _variables(report: Report, prometheus: Prometheus) -> None:
    asked = expressions.of_variables()
    for where, selector, label in asked:
        if not prometheus.label_values(label, selector):
            report.wrong(f"{where}: no values: {selector}")
    report.say(f"{len(asked)} variables asked")


def _chosen(report: Report, prometheus: Prometheus) -> None:
    """Ask the same of one worker alone: on Kubernetes by its namespace, elsewhere by its job."""
    for chosen in ({"namespace": "stac", "worker": "stac/ingest"}, {"worker": "ingest"}):
        empty = []
        asked = [each for each in expressions.of_panels({**ALL, **chosen}) if each.needs == "load"]
        for each in asked:
            found = prometheus.query(each.text)
            if not found:
                empty.append(each)
            for series in found:
                if series["metric"].get("job", chosen["worker"]) != chosen["worker"]:
                    report.wrong(f"{each.where}: {chosen} shows {series['metric']['job']}")
        for each in empty:
            report.wrong(f"{each.where}: empty for {chosen}: {each.text}")
        report.say(f"{len(asked)} expressions asked for {chosen}")


def _rules_are_well(report: Report, prometheus: Prometheus) -> None:
    found = prometheus.rules()
    for rule in found:
        if rule["health"] != "ok":
            report.wrong(f"rule {rule['name']}: {rule['health']}: {rule.get('lastError')}")
    for rule in expressions.rules():
        if "record" in rule and not prometheus.query(rule["record"]):
            report.wrong(f"rule {rule['record']} recorded nothing")
    if len(found) != len(expressions.rules()):
        report.wrong(f"{len(found)} rules are loaded, {len(expressions.rules())} are shipped")
    up = sorted(rule["name"] for rule in found if rule["type"] == "alerting" and rule["alerts"])
    report.say(f"{len(found)} rules evaluated; pending or firing: {', '.join(up) or 'none'}")


def _queries_of_runbooks(report: Report, prometheus: Prometheus, dsn: str) -> None:
    """Run what the runbooks give: SQL in the catalogue of the workers, and PromQL. It has to be valid."""
    count = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        for page in sorted(_RUNBOOKS.glob("*.md")):
            for query in re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL):
                count += 1
                try:
                    connection.execute(query.encode())
                except psycopg.Error as error:
                    report.wrong(f"{page.name}: {error}")
            for expression in re.findall(r"`((?:sum|max|rate|deriv)[ (][^`]+)`", page.read_text()):
                count += 1
                prometheus.query(expression)
    report.say(f"{count} queries of runbooks run, in SQL and PromQL")


def _jobs_down(prometheus: Prometheus, share: str) -> list[str]:
    """Ask StacworkerTargetDown; `share` is put in for what it looks at, so that less than five minutes are enough."""
    text = expressions.alerts()["StacworkerTargetDown"]["expr"].replace(_TARGETS, share)
    return sorted(series["metric"]["job"] for series in prometheus.query(text))


async def _outage(report: Report, site: Site, prometheus: Prometheus, asked: Sequence[Asked]) -> None:
    """Stop the database: what tells of outages has an answer. Start it: the workers go on."""
    site.world.postgres.crash()
    try:
        await _until(lambda: len(prometheus.query("stacworker_circuit_open > 0")) == 2, "both workers paused")
        _all_answered(report, prometheus, asked, "in an outage")
        if not prometheus.query(expressions.alerts()["StacworkerCircuitOpen"]["expr"]):
            report.wrong("StacworkerCircuitOpen does not see an outage")
    finally:
        await asyncio.to_thread(site.world.postgres.restart)
    await _until(lambda: not prometheus.query("stacworker_circuit_open > 0"), "both workers go on")
    await send_for(_AFTER_S, site.world, site.items, site.requests, first=1000)
    report.say("the outage is over")


async def _end(report: Report, site: Site, prometheus: Prometheus, asked: Sequence[Asked]) -> None:
    """Drain one worker, kill the other: they are missed."""
    code = await site.plain.stop()
    if code != 0:
        report.wrong(f"a worker drained with exit code {code}: {site.plain.log()}")
    await site.pod.kill()
    await _until(lambda: not prometheus.query("stacworker_build_info"), "both workers gone")
    _all_answered(report, prometheus, asked, "with all workers gone")
    recorded = next(rule["expr"] for rule in expressions.rules() if rule.get("record") == _TARGETS)
    share, jobs = f"({recorded.replace('[5m]', '[3s]')})", sorted(site.targets())
    await _until(lambda: _jobs_down(prometheus, share) == jobs, "StacworkerTargetDown sees all that are down")
    report.say(f"down in the end: {', '.join(jobs)}")


def _draw(report: Report, prometheus: Prometheus, started: float) -> None:
    _PICTURES.mkdir(parents=True, exist_ok=True)
    for dashboard in expressions.dashboards():
        path = _PICTURES / f"{dashboard['uid']}.svg"
        path.write_text(pictures.drawn(prometheus, dashboard, started + 5, time.time()))
        report.say(f"{path.name}: {path.stat().st_size // 1000} kB")


async def _until(condition: Callable[[], bool], what: str, within_s: float = 45.0) -> None:
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise Failed(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.25)


if __name__ == "__main__":
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    sys.exit(main())
