"""Commands that run: serve, jobs, mock-openai; and those that prepare: check-config, migrate.

A running command says `ready` on standard output once it can be used, logs to standard error, and
ends on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from gateway.cli.arguments import add_config, add_json, config_path, running, settings_of
from gateway.cli.failures import CommandError

if TYPE_CHECKING:
    from gateway.config import Settings

# What a command needs is imported by the command: `serve` starts three of these programs, and
# importing all of it in each would take longer than everything else at the start.
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
    served.set_defaults(run=running(_serve))

    jobs = commands.add_parser("jobs", help="run the jobs process alone (beside serve --jobs none)")
    add_config(jobs)
    jobs.set_defaults(run=running(_jobs), port=None, alone=True)

    check = commands.add_parser("check-config", help="check the configuration and print it")
    add_config(check)
    add_json(check)
    check.add_argument("--schema", action="store_true", help="print the JSON Schema instead")
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

    for name, work in (("proxy-process", _proxy), ("jobs-process", _jobs)):
        child = commands.add_parser(name)  # started by serve; not in the list of --help
        add_config(child)
        child.add_argument("--port", type=int)
        child.set_defaults(run=running(work), alone=False)


async def _serve(chosen: argparse.Namespace) -> int:
    from gateway.app.family import Family

    settings = settings_of(chosen)
    keyless = not any(each.api_key for each in settings.upstreams.values())
    stand_in = chosen.stand_in or (chosen.demo and keyless)
    family = Family(config_path(chosen), jobs=chosen.jobs == "here")
    await family.start()
    try:
        from gateway.app.process import configure_logs
        from gateway.app.supervisor import serve

        configure_logs()
        welcome = partial(_welcome, settings) if chosen.demo else None
        await serve(settings, family, stand_in, welcome)
    finally:
        await family.stop()
    return 0


async def _welcome(settings: Settings, places: Mapping[str, str]) -> None:
    from gateway.app.demo import welcome

    await welcome(settings, places)


async def _proxy(chosen: argparse.Namespace) -> int:
    from gateway.app.process import configure_logs, supervisors_word
    from gateway.app.proxy_process import loaded_tokenizer, run_proxy
    from gateway.app.stand_in import with_stand_in

    configure_logs()
    settings = settings_of(chosen)
    tokenizer = loaded_tokenizer(settings)  # takes a while, and the stores are starting meanwhile
    stand_in_url = supervisors_word()
    if stand_in_url:
        settings = with_stand_in(settings, stand_in_url)
    if chosen.port is not None:
        proxy = replace(settings.listen.proxy, port=chosen.port)
        settings = replace(settings, listen=replace(settings.listen, proxy=proxy))
    await run_proxy(settings, tokenizer)
    return 0


async def _jobs(chosen: argparse.Namespace) -> int:
    from gateway.app.jobs_process import run_jobs
    from gateway.app.process import configure_logs, supervisors_word

    configure_logs()
    settings = settings_of(chosen)
    if not chosen.alone:
        supervisors_word()
    if chosen.port is not None:
        admin = replace(settings.listen.admin, port=chosen.port)
        settings = replace(settings, listen=replace(settings.listen, admin=admin))
    await run_jobs(settings, ops_port=chosen.alone)
    return 0


async def _migrate(chosen: argparse.Namespace) -> int:
    from gateway.app.command_stores import borrowed_stores
    from gateway.app.ledger_schema import prepare_ledger

    settings = settings_of(chosen)
    async with borrowed_stores(settings):
        applied = await prepare_ledger(settings)
    print("\n".join(f"applied {name}" for name in applied) or "the ledger is up to date")
    return 0


def _check_config(chosen: argparse.Namespace) -> int:
    from gateway.config import effective, schema

    if chosen.schema:
        print(json.dumps(schema(), indent=2))
        return 0
    settings = settings_of(chosen)
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
    from gateway.app.stand_in import run_stand_in

    try:
        await run_stand_in(
            chosen.listen, chosen.chunk_tokens, chosen.require_key, chosen.compatible
        )
    except (ValueError, OSError) as error:
        raise CommandError(f"mock-openai: {error}") from error
    return 0
