"""Commands that run: serve, jobs, mock-openai; and those that prepare: check-config, migrate.

A running command says `ready` on standard output once it can be used, logs to standard error, and
ends on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from gateway.cli.arguments import add_config, add_json, config_path, running, settings_of
from gateway.cli.changes import add_diff, show_changes
from gateway.cli.failures import CommandError, ended

if TYPE_CHECKING:
    from gateway.app.arrangement import Arrangement
    from gateway.app.children import Member, Say
    from gateway.app.family import Family
    from gateway.config import Settings

# What a command needs is imported by the command: importing all of it takes longer than most take.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Add this module's commands."""
    served = commands.add_parser("serve", help="run the gateway: proxy, jobs, ops port")
    add_config(served)
    served.add_argument(
        "--demo", action="store_true", help="make demo users, print how to try them"
    )
    served.add_argument(
        "--stand-in", action="store_true", help="answer calls with the built-in stand-in"
    )
    served.add_argument(
        "--jobs", choices=("here", "none"), default="here", help="run the jobs process here, or not"
    )
    served.add_argument(
        "--workers", type=_workers, metavar="N", help="proxy workers, instead of the file's number"
    )
    served.set_defaults(run=_serve)

    jobs = commands.add_parser("jobs", help="run the jobs process alone (beside serve --jobs none)")
    add_config(jobs)
    jobs.set_defaults(run=running(_jobs))

    check = commands.add_parser("check-config", help="check the configuration and print it")
    add_config(check)
    add_json(check)
    check.add_argument("--schema", action="store_true", help="print the JSON Schema instead")
    add_diff(check)
    check.set_defaults(run=_check_config)

    migrated = commands.add_parser("migrate", help="bring the ledger's schema up to date")
    add_config(migrated)
    migrated.set_defaults(run=running(_migrate))

    mock = commands.add_parser("mock-openai", help="run the stand-in for OpenAI")
    mock.add_argument("--listen", default="127.0.0.1:8795", metavar="HOST:PORT")
    mock.add_argument("--chunk-tokens", type=int, default=4, metavar="N", help="tokens a chunk")
    mock.add_argument("--require-key", metavar="KEY", help="refuse every other key")
    mock.add_argument(
        "--compatible", action="store_true", help="know no more than servers like Ollama do"
    )
    mock.set_defaults(run=running(_mock_openai))


def _serve(chosen: argparse.Namespace) -> int:
    from gateway.app.arrangement import arranged
    from gateway.app.family import Family
    from gateway.app.grace import Grace
    from gateway.app.mailing import open_mail

    settings = settings_of(chosen)
    open_mail(settings)  # its templates are tried before anything starts
    if chosen.workers is not None:
        settings = replace(settings, workers=chosen.workers)
    keyless = not any(each.api_key for each in settings.upstreams.values())
    jobs, stand_in = chosen.jobs == "here", chosen.stand_in or (chosen.demo and keyless)
    with (
        arranged(settings, jobs, stand_in) as arrangement,
        closing(
            Family(partial(_Prepared, arrangement), Grace(settings.shutdown_s).family_stop_s)
        ) as family,
    ):
        return asyncio.run(_supervise(arrangement, family, chosen.demo))


class _Prepared:
    """The work of the family's processes; what they run into is told as a command tells it."""

    def __init__(self, arrangement: Arrangement) -> None:
        from gateway.app.logs import configure_logs
        from gateway.app.members import Members

        configure_logs(arrangement.settings)
        self._members = Members(arrangement)
        self.take = self._members.take

    def members(self) -> list[Member]:
        return [replace(each, work=partial(_told, each.work)) for each in self._members.members()]


def _told(work: Callable[[Say], int], say: Say) -> int:
    return ended(lambda: work(say))


async def _supervise(arrangement: Arrangement, family: Family, demo: bool) -> int:
    try:
        from gateway.app.logs import configure_logs
        from gateway.app.supervisor import serve

        configure_logs(arrangement.settings)
        welcome = partial(_welcome, arrangement.settings) if demo else None
        await serve(arrangement, family, welcome)
    finally:
        await family.stop()
    return 0


async def _welcome(settings: Settings, places: Mapping[str, str]) -> None:
    from gateway.app.demo import welcome

    await welcome(settings, places)


async def _jobs(chosen: argparse.Namespace) -> int:
    from gateway.app.arrangement import Arrangement
    from gateway.app.jobs_process import run_jobs
    from gateway.app.logs import configure_logs
    from gateway.app.signals import say_ready

    settings = settings_of(chosen)
    configure_logs(settings)
    await run_jobs(Arrangement(settings, ("jobs",), {}), say_ready, alone=True)
    return 0


def _workers(text: str) -> int:
    """As `workers` in the configuration."""
    from gateway.config.ranges import WORKERS_MAX

    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= WORKERS_MAX):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {WORKERS_MAX}")
    return int(text)


async def _migrate(chosen: argparse.Namespace) -> int:
    from gateway.app.command_stores import borrowed_stores
    from gateway.app.ledger_schema import prepare_ledger

    settings = settings_of(chosen)
    async with borrowed_stores(settings):
        applied = await prepare_ledger(settings)
    print("\n".join(f"applied {name}" for name in applied) or "the ledger is up to date")
    return 0


def _check_config(chosen: argparse.Namespace) -> int:
    from gateway.app.mailing import open_mail
    from gateway.config import effective, schema

    if chosen.schema:
        print(json.dumps(schema(), indent=2))
        return 0
    if chosen.diff is not None or chosen.against is not None:
        return show_changes(chosen)
    settings = settings_of(chosen)
    open_mail(settings)
    if chosen.json:
        print(json.dumps(effective(settings), indent=2))
    else:
        tiers = ", ".join(f"{tier.name} {tier.tokens:,}" for tier in settings.plan.tiers.values())
        print(f"{config_path(chosen)} is in order")
        print(f"tiers   {tiers}")
        print(f"models  {', '.join(settings.models)}")
        print(f"stores  redis {settings.redis.url.shown}, ledger {settings.ledger.url.shown}")
        for name, model in settings.file.models.items():
            if model.until is not None and model.until <= datetime.now(UTC).date():
                print(f"note    {name} is no longer served: it was to end on {model.until}")
    return 0


async def _mock_openai(chosen: argparse.Namespace) -> int:
    from gateway.adapters.tokenizer.bpe import BpeTokenizer
    from gateway.app.signals import say_ready
    from gateway.app.stand_in import run_stand_in, stand_in_settings
    from gateway.config.values import parse_address

    try:
        address = parse_address(chosen.listen)
        settings = stand_in_settings(
            BpeTokenizer(),
            host=address.host,
            port=address.port,
            chunk_tokens=chosen.chunk_tokens,
            require_key=chosen.require_key,
            compatible=chosen.compatible,
        )
        await run_stand_in(settings, say_ready)
    except (ValueError, OSError) as error:
        raise CommandError(f"mock-openai: {error}") from error
    return 0
