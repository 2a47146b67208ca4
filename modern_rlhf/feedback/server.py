"""The rating page's web server: `modern-rlhf rate`.

FastAPI and uvicorn are loaded when a server is built (extra `feedback`). The server trusts nobody: what
`guard` refuses gets a 4xx page and changes nothing, a change needs a strict cookie and a token of one
use, and no page can load anything from elsewhere. The cookie holds the rater's name and nothing else,
so it outlives the server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from modern_rlhf.errors import ConfigError, OutputError
from modern_rlhf.feedback.answers import pair_items, read_answers, single_items
from modern_rlhf.feedback.guard import check_origin, form_fields, host_names, is_local
from modern_rlhf.feedback.page import STATIC, error_page, name_page, rating_page
from modern_rlhf.feedback.sessions import RatingRoom
from modern_rlhf.feedback.submissions import Mode, Refused, rater_name
from modern_rlhf.utils.paths import at_home, resolve_path

COOKIE = "modern_rlhf_rater"  # and the port: browsers keep the cookies of all ports together

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Endpoint = Callable[[Any], Awaitable[Any]]


def _say(text: str) -> None:
    print(text, flush=True)  # the address must be there at once in a log too


def serve(
    answers_path: str,
    folder: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    mode: Mode = "compare",
    raters_per_item: int = 2,
    seed: int = 0,
    announce: Callable[[str], None] = _say,
) -> None:
    """Serve the rating page until interrupted; ratings go to `folder`, one file each.

    Args:
        answers_path: JSONL of questions with answers (see `feedback.answers`).
        host: the address to listen on; anything but this machine's own is announced as public.
        port: 0 lets the system choose.
        mode: `compare` two answers, or rate a `single` one from 1 to 5.

    Raises:
        DataError: the answers cannot be read, or nothing can be compared.
        ConfigError: the packages are missing, or host and port cannot be bound.
        OutputError: the folder cannot be written.
    """
    room = open_room(answers_path, folder, mode=mode, raters_per_item=raters_per_item, seed=seed)
    import uvicorn

    listener = _bind(host, port)
    bound = listener.getsockname()[1]
    app = build_app(room, host=host, port=bound)
    shown = f"[{host}]" if ":" in host else host
    announce(f"rate answers at http://{shown}:{bound}/ (ratings go to {folder}); Ctrl-C ends it")
    if not is_local(host):
        announce("warning: everybody who can reach this machine can open the page and rate")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn has shut down in order and raises the signal again
    finally:
        listener.close()


def open_room(
    answers_path: str,
    folder: str | os.PathLike[str],
    *,
    mode: Mode = "compare",
    raters_per_item: int = 2,
    seed: int = 0,
) -> RatingRoom:
    """Read the answers and prepare the folder; errors as in `serve`."""
    if mode not in ("compare", "single"):
        raise ConfigError(f"mode {mode!r}: expected 'compare' or 'single'")
    if raters_per_item < 1:
        raise ConfigError(f"raters_per_item={raters_per_item}: expected at least 1")
    answers = read_answers(at_home(resolve_path(answers_path)))
    items = pair_items(answers) if mode == "compare" else single_items(answers)
    target = prepare(folder)
    return RatingRoom(items, target, mode=mode, raters_per_item=raters_per_item, seed=seed)


def prepare(folder: str | os.PathLike[str]) -> Path:
    """Check what needs no answers yet, before models spend an hour on them; the folder of ratings.

    Raises:
        ConfigError: the packages are missing. OutputError: the folder cannot be written.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(_MISSING) from error
    target = at_home(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be used for ratings ({error.strerror})") from error
    if not os.access(target, os.W_OK):
        raise OutputError(f"{target}: no write permission; choose a folder that can be written")
    return target


def build_app(room: RatingRoom, *, host: str, port: int) -> Any:
    """The ASGI application of one room."""
    from fastapi import FastAPI
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, RedirectResponse, Response
    from starlette.routing import BaseRoute, Route

    cookie = f"{COOKIE}_{port}"

    def page(content: str, status: int = 200) -> Any:
        return HTMLResponse(content, status)

    def onward() -> Any:
        return RedirectResponse("/rate", 303)

    def rater_of(request: Any) -> str:
        """Who the browser says is rating; empty for nobody."""
        try:
            return rater_name(unquote(request.cookies.get(cookie, "")))
        except Refused:
            return ""

    async def start_page(request: Any) -> Any:
        return onward() if rater_of(request) else page(name_page(room.mode))

    async def start(request: Any) -> Any:
        fields = await form_fields(request)
        try:
            rater = rater_name(fields.get("name", ""))
        except Refused as refused:
            return page(name_page(room.mode, str(refused)), refused.status)
        response = onward()
        value = quote(rater, safe="")
        response.set_cookie(cookie, value, httponly=True, samesite="strict", path="/")
        return response

    async def leave(request: Any) -> Any:
        await form_fields(request)
        room.leave(rater_of(request))
        response = RedirectResponse("/", 303)
        response.delete_cookie(cookie, path="/")
        return response

    async def current(
        rater: str, status: int = 200, problem: str = "", typed: Mapping[str, str] | None = None
    ) -> Any:
        """The page that this rater is on; `typed` was sent with a refused submission."""

        def build() -> str:
            return rating_page(room.view(rater), room.mode, problem=problem, typed=typed)

        return page(await run_in_threadpool(build), status)

    async def show(request: Any) -> Any:
        rater = rater_of(request)
        return await current(rater) if rater else RedirectResponse("/", 303)

    async def act(request: Any) -> Any:
        fields = await form_fields(request)
        rater = rater_of(request)
        if not rater:
            raise Refused(403, "Your sitting has ended. Please begin again with your name.")
        action, token = fields.pop("action", ""), fields.pop("token", "")
        try:
            await run_in_threadpool(room.act, rater, action, token, fields)
        except Refused as refused:
            if refused.status not in (409, 422):
                raise
            return await current(rater, refused.status, str(refused), fields)
        except OutputError as error:
            return await current(rater, 507, str(error), fields)
        return onward()

    async def static(request: Any) -> Any:
        found = STATIC.get(request.path_params["name"])
        if found is None:
            raise Refused(404, "There is no such page.")
        media_type, path = found
        return Response(path.read_bytes(), media_type=media_type)

    async def refuse(request: Any, refused: Exception) -> Any:
        status = refused.status if isinstance(refused, Refused) else 400
        return page(error_page(status, str(refused)), status)

    async def not_found(request: Any, error: Exception) -> Any:
        status = getattr(error, "status_code", 404)
        text = "There is no such page." if status == 404 else "This page cannot be used like that."
        return page(error_page(status, text), status)

    async def gone(request: Any, error: Exception) -> Any:
        return Response(status_code=400)  # nobody reads it; a traceback would fill the terminal

    def guarded(endpoint: Endpoint, *methods: str) -> Endpoint:
        async def run(request: Any) -> Any:
            check_origin(request, allowed, changes="POST" in methods)
            return await endpoint(request)

        return run

    allowed = host_names(host)
    routes: list[BaseRoute] = [
        Route("/", guarded(start_page, "GET"), methods=["GET"]),
        Route("/start", guarded(start, "POST"), methods=["POST"]),
        Route("/leave", guarded(leave, "POST"), methods=["POST"]),
        Route("/rate", guarded(show, "GET"), methods=["GET"]),
        Route("/rate", guarded(act, "POST"), methods=["POST"]),
        Route("/static/{name}", guarded(static, "GET"), methods=["GET"]),
    ]
    app = FastAPI(
        routes=routes,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={
            Refused: refuse,
            404: not_found,
            405: not_found,
            ClientDisconnect: gone,
        },
    )
    return _WithHeaders(app)


class _WithHeaders:
    """Adds the security headers to every response, errors included."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _bind(host: str, port: int) -> socket.socket:
    if not host:
        raise ConfigError(
            "the host is empty: give 127.0.0.1 for this machine, 0.0.0.0 for every one"
        )
    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65536
        raise ConfigError(f"cannot listen on {host}:{port}: a port is a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # on Windows this option would let two servers share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error}); give another --port or --host"
        ) from error
    return listener


_MISSING = "the rating page needs FastAPI and uvicorn: pip install 'modern-rlhf[feedback]'"
