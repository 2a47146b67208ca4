"""The rating page's web server: `modern-rlhf rate`.

FastAPI and uvicorn are loaded when a server is built (extra `feedback`). The server trusts nobody: it
answers to its own host names only (no DNS rebinding), takes changes only from its own pages (Origin,
Fetch Metadata, a strict cookie and a token of one use), reads at most `MAX_BODY` bytes of one content
type, and lets no page load anything from elsewhere. A refused request gets a 4xx page and changes
nothing.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from modern_rlhf.errors import ConfigError, OutputError
from modern_rlhf.feedback.answers import pair_items, read_answers, single_items
from modern_rlhf.feedback.page import STATIC, error_page, name_page, rating_page
from modern_rlhf.feedback.sessions import Mode, RatingRoom, Refused
from modern_rlhf.utils.paths import resolve_path

MAX_BODY = 64 * 1024
# A browser shows no answer that is sent before its request was read, so this much is read and dropped.
MAX_DRAINED = 8 * 1024 * 1024
MAX_FIELDS = 32
COOKIE = "modern_rlhf_rater"

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
_FORM = "application/x-www-form-urlencoded"

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
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(_MISSING) from error
    listener = _bind(host, port)
    bound = listener.getsockname()[1]
    app = build_app(room, host=host, port=bound)
    shown = f"[{host}]" if ":" in host else host
    announce(f"rate answers at http://{shown}:{bound}/ (ratings go to {folder}); Ctrl-C ends it")
    if not _is_local(host):
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
    answers = read_answers(resolve_path(answers_path))
    items = pair_items(answers) if mode == "compare" else single_items(answers)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be used for ratings ({error.strerror})") from error
    if not os.access(target, os.W_OK):
        raise OutputError(f"{target}: no write permission; choose a folder that can be written")
    return RatingRoom(items, target, mode=mode, raters_per_item=raters_per_item, seed=seed)


def build_app(room: RatingRoom, *, host: str, port: int) -> Any:
    """The ASGI application of one room.

    Raises:
        ConfigError: FastAPI is not installed.
    """
    try:
        from fastapi import FastAPI
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import HTMLResponse, RedirectResponse, Response
        from starlette.routing import BaseRoute, Route
    except ImportError as error:
        raise ConfigError(_MISSING) from error

    def page(content: str, status: int = 200) -> Any:
        return HTMLResponse(content, status)

    def onward() -> Any:
        return RedirectResponse("/rate", 303)

    async def start_page(request: Any) -> Any:
        return onward() if room.knows(_session_id(request)) else page(name_page(room.mode))

    async def start(request: Any) -> Any:
        fields = await _fields(request)
        try:
            session_id = room.enter(fields.get("name", ""))
        except Refused as refused:
            return page(name_page(room.mode, str(refused)), refused.status)
        response = onward()
        response.set_cookie(COOKIE, session_id, httponly=True, samesite="strict", path="/")
        return response

    async def leave(request: Any) -> Any:
        await _fields(request)
        room.leave(_session_id(request))
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, path="/")
        return response

    async def show(request: Any) -> Any:
        session_id = _session_id(request)
        if not room.knows(session_id):
            return RedirectResponse("/", 303)
        view = await run_in_threadpool(room.view, session_id)
        return page(rating_page(view, room.mode))

    async def act(request: Any) -> Any:
        fields = await _fields(request)
        session_id = _session_id(request)
        action, token = fields.pop("action", ""), fields.pop("token", "")
        try:
            await run_in_threadpool(room.act, session_id, action, token, fields)
        except Refused as refused:
            if refused.status != 422:
                raise
            view = await run_in_threadpool(room.view, session_id)
            again = rating_page(view, room.mode, problem=str(refused), typed=fields)
            return page(again, refused.status)
        except OutputError as error:
            view = await run_in_threadpool(room.view, session_id)
            return page(rating_page(view, room.mode, problem=str(error), typed=fields), 507)
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

    def guarded(endpoint: Endpoint, *methods: str) -> Endpoint:
        async def run(request: Any) -> Any:
            _check_origin(request, allowed, changes="POST" in methods)
            return await endpoint(request)

        return run

    allowed = _allowed_hosts(host, port)
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
        exception_handlers={Refused: refuse, 404: not_found, 405: not_found},
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


async def _fields(request: Any) -> dict[str, str]:
    """The form fields of a request, each given once at most; `Refused` for anything else."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Refused(415, f"Expected a form ({_FORM}).")
    body, size = b"", 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY:
            body += chunk
        elif size > MAX_DRAINED:
            break
    if size > MAX_BODY:
        raise Refused(413, f"That is more than {MAX_BODY // 1024} KiB.")
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:  # UnicodeDecodeError too
        raise Refused(400, "The form could not be read.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refused(400, "A field was given twice.")
    if any("\0" in value for value in fields.values()):
        raise Refused(400, "The form holds a character that no text has.")
    return fields


def _session_id(request: Any) -> str:
    return str(request.cookies.get(COOKIE, ""))


def _check_origin(request: Any, allowed: frozenset[str] | None, *, changes: bool) -> None:
    """Refuse other host names, and changes asked for by another site's page."""
    host = request.headers.get("host", "").lower()
    if allowed is not None and host not in allowed:
        raise Refused(403, "This server does not answer to that host name.")
    if not changes:
        return
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "Ratings are taken from this server's own pages only.")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host:
        raise Refused(403, "Ratings are taken from this server's own pages only.")


def _allowed_hosts(host: str, port: int) -> frozenset[str] | None:
    """The Host headers that are answered; None means any (a server on every address)."""
    if host in ("0.0.0.0", "::", ""):
        return None
    names = {host, f"[{host}]"} if ":" in host else {host}
    if _is_local(host):
        names |= {"localhost", "127.0.0.1", "[::1]"}
    ported = {f"{name.lower()}:{port}" for name in names}
    return frozenset(ported | names) if port == 80 else frozenset(ported)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65536
        raise ConfigError(f"cannot listen on {host}:{port}: a port is a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
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
