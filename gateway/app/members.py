"""Who the family of one `serve` is: proxy workers, the jobs, and the stand-in where it is wanted.

Importing this module is the load that all of them share; what it cannot share, a loop and
connections, each makes for itself after it was forked.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.arrangement import Arrangement
from gateway.app.callers import load_proving
from gateway.app.children import Member, Say
from gateway.app.grace import Grace
from gateway.app.jobs_process import run_jobs
from gateway.app.process import collect_seldom, run_loop
from gateway.app.proxy_process import loaded_tokenizer, run_proxy
from gateway.config import Settings


def members_of(arrangement: Arrangement) -> list[Member]:
    """The processes that were arranged. Takes a while: the vocabularies are loaded here."""
    settings = arrangement.settings
    tokenizer = loaded_tokenizer(settings)
    load_proving(settings)
    members = [_member(settings, name, tokenizer) for name in arrangement.names]
    if arrangement.stand_in is not None:
        work = partial(_stand_in, tokenizer, arrangement.stand_in)
        members.append(Member("stand-in", work, 1, Grace(settings.shutdown_s).jobs_stop_s))
    return members


def _member(settings: Settings, name: str, tokenizer: BpeTokenizer) -> Member:
    grace = Grace(settings.shutdown_s)
    if name == "jobs":  # when the proxies have ended: they drain what these settled
        return Member(name, partial(_jobs, settings), 1, grace.jobs_stop_s)
    return Member(name, partial(_proxy, settings, name, tokenizer), 0, grace.proxy_stop_s)


def _proxy(settings: Settings, name: str, tokenizer: BpeTokenizer, say: Say) -> int:
    collect_seldom()
    run_loop(run_proxy(settings, name, tokenizer, say))
    return 0


def _jobs(settings: Settings, say: Say) -> int:
    run_loop(run_jobs(settings, say, alone=False))
    return 0


def _stand_in(tokenizer: BpeTokenizer, url: str, say: Say) -> int:
    from gateway.app.stand_in import run_stand_in, stand_in_settings

    place = urlsplit(url)
    host, port = str(place.hostname), place.port or 0
    settings = stand_in_settings(tokenizer, host=host, port=port, reserved=True)
    run_loop(run_stand_in(settings, say))
    return 0
