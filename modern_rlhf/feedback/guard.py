"""Which requests the rating page believes: its own host names, its own pages' forms, small and well made.

Three attacks are meant: another site's page that submits a form here (Origin, Referer and Fetch Metadata
say where it came from), a name of an attacker's that is suddenly this machine's (DNS rebinding; the Host
header still has it), and bodies made to hurt. A form is read as text fields, each given once at most.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from modern_rlhf.feedback.submissions import Refused

MAX_BODY = 64 * 1024
# A browser shows no answer that is sent before its request was read, so this much is read and dropped.
MAX_DRAINED = 8 * 1024 * 1024
MAX_FIELDS = 32
_FORM = "application/x-www-form-urlencoded"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/\s]+)(?::\d{1,5})?")
_ANY_ADDRESS = "*"


async def form_fields(request: Any) -> dict[str, str]:
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


def check_origin(request: Any, allowed: frozenset[str], *, changes: bool) -> None:
    """Refuse other host names, and changes asked for by another site's page."""
    host = request.headers.get("host", "").lower()
    # The port is not compared: a tunnel (ssh -L 9000:localhost:8000) has another one, and rebinding
    # needs a name of the attacker's own.
    name = _HOST.fullmatch(host)
    if name is None or not (
        name[1] in allowed or (_ANY_ADDRESS in allowed and _is_address(name[1]))
    ):
        raise Refused(403, "This server does not answer to that host name (see --host).")
    if not changes:
        return
    sent_by = request.headers.get("origin", request.headers.get("referer"))
    if (
        request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        or sent_by is not None
        and _authority(sent_by) != host
    ):
        raise Refused(403, "Ratings are taken from this server's own pages only.")


def host_names(host: str) -> frozenset[str]:
    """The names this server answers to.

    One on every address answers to every numeric address, which no rebinding can have for its name,
    and to this machine's own names.
    """
    own = {f"[{host}]" if ":" in host else host}
    if host in ("0.0.0.0", "::"):
        machine = socket.gethostname()
        own |= {_ANY_ADDRESS, machine, f"{machine.partition('.')[0]}.local"}
    if is_local(host) or _ANY_ADDRESS in own:
        own |= {"localhost", "127.0.0.1", "[::1]"}
    return frozenset(name.lower() for name in own)


def is_local(host: str) -> bool:
    """Whether `host` is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _authority(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
