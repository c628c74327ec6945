"""The opponent: a pass-through to one upstream, as anybody would write it with aiohttp.

Streams as they come, everything else whole; the upstream's key in place of the caller's. No quota,
no ledger, no metrics. What aiohttp offers against waste is used: one session, no limit of
connections, no access log, no cookies.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

from bench.loops import Loop, new_loop

UPSTREAM, KEY = web.AppKey("upstream", str), web.AppKey("key", str)
SESSION = web.AppKey("session", ClientSession)


async def passed_on(request: web.Request) -> web.StreamResponse:
    """One call: sent on, and its answer sent back."""
    app = request.app
    headers = {
        "Content-Type": request.headers.get("Content-Type", "application/json"),
        "Authorization": f"Bearer {app[KEY]}",
    }
    url, body = app[UPSTREAM] + request.rel_url.raw_path_qs, await request.read()
    async with app[SESSION].request(request.method, url, data=body, headers=headers) as answer:
        kind = {"Content-Type": answer.headers["Content-Type"]}
        if answer.content_type != "text/event-stream":
            return web.Response(status=answer.status, body=await answer.read(), headers=kind)
        response = web.StreamResponse(status=answer.status, headers=kind)
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


async def session_of(app: web.Application) -> AsyncIterator[None]:
    """One session for as long as the server runs: streams may be long, bytes stay as they are."""
    async with ClientSession(
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None, sock_connect=5),
        auto_decompress=False,
    ) as app[SESSION]:
        yield


def main(port: int, upstream: str, key: str, loop: Loop) -> None:
    """Serve on 127.0.0.1 until SIGTERM."""
    app = web.Application(client_max_size=2**26)
    app[UPSTREAM], app[KEY] = upstream, key
    app.cleanup_ctx.append(session_of)
    app.router.add_route("*", "/{path:.*}", passed_on)
    own_loop = new_loop(loop)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, loop=own_loop, print=_say_ready)


def _say_ready(_: str) -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    main(
        int(sys.argv[1]), sys.argv[2], sys.argv[3], "uvloop" if "uvloop" in sys.argv else "asyncio"
    )
