"""Trying the mail settings: `mail test`.

Exit code 0 when the server took the mail over, 1 when it did not. Whether a mail arrives is not
known here.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias

from gateway.cli.arguments import add_config, add_json, config_path, running, settings_of
from gateway.cli.failures import FAILED, CommandError

if TYPE_CHECKING:
    from gateway.app.mail_trial import MailTrial

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Add `mail test`."""
    mail = commands.add_parser("mail", help="try the mail settings")
    actions = mail.add_subparsers(metavar="ACTION", required=True)
    tried = actions.add_parser("test", help="send one mail now, and say what became of it")
    tried.add_argument("address", help="where it goes")
    add_config(tried)
    add_json(tried)
    tried.set_defaults(run=running(_test))


async def _test(chosen: argparse.Namespace) -> int:
    from gateway.app.mail_trial import NoMailServer, try_mail

    try:
        trial = await try_mail(settings_of(chosen), chosen.address)
    except NoMailServer:
        raise CommandError(
            f"{config_path(chosen)} names no mail server: set notify.smtp (docs/notifications.md)"
        ) from None
    if chosen.json:
        print(json.dumps(asdict(trial)))
    else:
        _print(trial)
    return 0 if trial.accepted else FAILED


def _print(trial: MailTrial) -> None:
    signed_in = f"signed in as {trial.user}" if trial.user else "not signed in"
    how = f"{trial.server}, {trial.connection}, {signed_in}"
    if trial.accepted:
        print(f"server   {how}")
        print(f"taken    {trial.said}")
        print(f"now      see whether it is in the mailbox of {trial.address}, or among its spam")
        return
    print(f"quota-gateway: no mail to {trial.address}", file=sys.stderr)
    print(f"tried    {how.replace('signed in as', 'to sign in as')}", file=sys.stderr)
    print(f"failed   {trial.said}", file=sys.stderr)
    print(f"to do    {trial.advice}", file=sys.stderr)
