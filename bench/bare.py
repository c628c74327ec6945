"""The opponent: a pass-through to one upstream, as anybody would write it with aiohttp.

Streams as they come, everything else whole; the upstream's key in place of the caller's. No quota,
no ledger, no metrics. What aiohttp offers against waste is used: one session, no limit of
connections, no access log, no cookies.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from bench.loops import new_loop

UPSTREAM, KEY, SESSION = (
    web.AppKey("upstream", str),
    web.AppKey("key", str),
    web.AppKey("session", ClientSession),
)


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
    """One session for as long as the server runs."""
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar()) as app[SESSION]:
        yield


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, metavar="URL", help="without a path")
    parser.add_argument("--key", required=True)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    chosen = parser.parse_args()
    app = web.Application(client_max_size=2**26)
    app[UPSTREAM], app[KEY] = chosen.upstream, chosen.key
    app.cleanup_ctx.append(session_of)
    app.router.add_route("*", "/{path:.*}", passed_on)
    web.run_app(
        app,
        host="127.0.0.1",
        port=chosen.port,
        access_log=None,
        print=lambda _: print("ready", flush=True),
        loop=new_loop(chosen.loop),
    )


if __name__ == "__main__":
    main()
