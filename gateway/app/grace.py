"""How the time between SIGTERM and SIGKILL is divided among those who have to end in it.

Most of it is the calls'. The rest, ten seconds or a third, is for what must follow: calls that are
still open are cut and settled, settlements are confirmed, the jobs drain what these left. Whoever
does not keep to a share is killed, so that the next one has its own; a kill loses nothing, it only
leaves the work to leases, the sweeper and the next start.
"""

from __future__ import annotations

from dataclasses import dataclass

_REST_S, _REST_SHARE = 10.0, 1 / 3


@dataclass(frozen=True, slots=True)
class Grace:
    """Shares of `shutdown_s`, in seconds, one after the other but where it says otherwise."""

    shutdown_s: float

    @property
    def calls_s(self) -> float:
        """Open calls run on for so long."""
        return self.shutdown_s - self._rest_s

    @property
    def last_words_s(self) -> float:
        """A client has so long to take the end of an answer that was cut; then it is dropped."""
        return 0.15 * self._rest_s

    @property
    def confirmed_s(self) -> float:
        """Then settlements wait for Redis, at most so long."""
        return 0.2 * self._rest_s

    @property
    def proxy_stop_s(self) -> float:
        """From SIGTERM on, after which a proxy is killed: all of the above, and some air."""
        return self.calls_s + 0.55 * self._rest_s

    @property
    def jobs_s(self) -> float:
        """Then the jobs end their steps, and drain what the proxies left."""
        return 0.3 * self._rest_s

    @property
    def jobs_stop_s(self) -> float:
        """From their own SIGTERM on, after which they are killed."""
        return 0.35 * self._rest_s

    @property
    def family_stop_s(self) -> float:
        """From SIGTERM on, after which all processes are killed; what is left is for the stores,
        where they are embedded."""
        return self.shutdown_s - 0.05 * self._rest_s

    @property
    def _rest_s(self) -> float:
        return min(_REST_S, self.shutdown_s * _REST_SHARE)
