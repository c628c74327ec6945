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
from gateway.app.configured import checked
from gateway.app.grace import Grace
from gateway.app.jobs_process import run_jobs
from gateway.app.process import collect_seldom, run_loop
from gateway.app.proxy_process import load_vocabularies, loaded_tokenizer, run_proxy


class Members:
    """The processes that were arranged. Takes a while: the vocabularies are loaded here."""

    def __init__(self, arrangement: Arrangement) -> None:
        self._arrangement = arrangement
        self._tokenizer = loaded_tokenizer(arrangement.settings)
        load_proving(arrangement.settings)

    def take(self, text: str) -> None:
        """From now on they are those of this configuration, which was found to be in order."""
        arrangement = checked(self._arrangement, text)
        load_vocabularies(self._tokenizer, arrangement.settings)
        load_proving(arrangement.settings)
        self._arrangement = arrangement

    def members(self) -> list[Member]:
        """Each with its work."""
        stand_in, settings = self._arrangement.stand_in, self._arrangement.settings
        members = [self._member(name) for name in self._arrangement.names]
        if stand_in is not None:
            work = partial(_stand_in, self._tokenizer, stand_in)
            members.append(Member("stand-in", work, 1, Grace(settings.shutdown_s).jobs_stop_s))
        return members

    def _member(self, name: str) -> Member:
        grace = Grace(self._arrangement.settings.shutdown_s)
        if name == "jobs":  # when the proxies have ended: they drain what these settled
            return Member(name, partial(_jobs, self._arrangement), 1, grace.jobs_stop_s)
        work = partial(_proxy, self._arrangement, name, self._tokenizer)
        return Member(name, work, 0, grace.proxy_stop_s)


def _proxy(arrangement: Arrangement, name: str, tokenizer: BpeTokenizer, say: Say) -> int:
    collect_seldom()
    run_loop(run_proxy(arrangement, name, tokenizer, say))
    return 0


def _jobs(arrangement: Arrangement, say: Say) -> int:
    run_loop(run_jobs(arrangement, say, alone=False))
    return 0


def _stand_in(tokenizer: BpeTokenizer, url: str, say: Say) -> int:
    from gateway.app.stand_in import run_stand_in, stand_in_settings

    place = urlsplit(url)
    host, port = str(place.hostname), place.port or 0
    settings = stand_in_settings(tokenizer, host=host, port=port, reserved=True)
    run_loop(run_stand_in(settings, say))
    return 0
