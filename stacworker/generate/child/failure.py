"""An exception of the user's code → what the parent is told about it."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from .secrets import without_secrets

_STANDARD_LIBRARY = str(Path(traceback.__file__).parent)
_CALLERS = (str(Path(__file__).parent), str(Path(_STANDARD_LIBRARY, "importlib")), "<frozen")
_LOCAL_FILE_ERRORS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_NETWORK_ERRORS = frozenset(
    # of clients whose errors do not derive from OSError
    {
        "aiohttp.client_exceptions.ClientConnectionError",
        "botocore.exceptions.HTTPClientError",
        "httpx.TransportError",
    }
)
_RETRIED_STATUSES = frozenset({408, 425, 429})
_REASON_CHARS = 2000
_MAX_CAUSES = 20  # `raise error from error` is its own cause


def failure(error: BaseException) -> dict[str, Any]:
    """Return class, reason and whether to try again.

    An exception may say for itself what it is: with `transient = True` its request is tried again, with
    `transient = False` it is not; with `error_class`, its text alone is the reason. Otherwise these are
    transient, also as the cause of another: OSError (and so ConnectionError, TimeoutError, the errors of
    requests, and of rasterio, which cannot tell a missing remote file from an unreachable one), except
    those about local files, and HTTP answers that stay as they are (4xx).
    """
    if isinstance(error, MemoryError):
        return {"class": "generator_memory", "transient": True, "reason": "ran out of memory"}
    error_class = getattr(error, "error_class", None)
    told = isinstance(error_class, str)
    return {
        "class": error_class if told else "generator_error",
        "transient": _is_transient(error),
        "reason": (without_secrets(str(error), os.environ) if told else report(error))[:_REASON_CHARS],
    }


def report(error: BaseException) -> str:
    """Return type and message, and where: the last lines in the user's code, and the last of all."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = without_secrets(str(error), os.environ)
    except Exception as inner:  # noqa: BLE001 - __str__ is the user's code too
        text = f"(its text cannot be had: {type(inner).__name__})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_caller(frame.filename)]
    own = [frame for frame in frames if not _is_library(frame.filename)][-2:]
    shown = own + [frame for frame in frames[-1:] if frame not in own] if own else frames[-3:]
    lines = [
        f"at {Path(frame.filename).name}:{frame.lineno} in {frame.name}" + (f": {frame.line}" if frame.line else "")
        for frame in shown
    ]
    return "\n".join([f"{name}: {text[:600]}" if text else name, *lines])


def _is_transient(error: BaseException | None) -> bool:
    declared = getattr(error, "transient", None)
    if isinstance(declared, bool):
        return declared
    for _ in range(_MAX_CAUSES):
        if error is None:
            break
        status = _http_status(error)
        if status is not None:
            return status >= 500 or status in _RETRIED_STATUSES  # noqa: PLR2004 - HTTP's class of server errors
        if isinstance(error, OSError) and not isinstance(error, _LOCAL_FILE_ERRORS):
            return True
        if any(f"{base.__module__}.{base.__qualname__}" in _NETWORK_ERRORS for base in type(error).__mro__):
            return True
        error = error.__cause__
    return False


def _http_status(error: BaseException) -> int | None:
    """Return the status in the errors of urllib (`code`), aiohttp (`status`), requests and httpx (`response`)."""
    response = getattr(error, "response", None)
    for status in (
        getattr(error, "code", None),
        getattr(error, "status", None),
        getattr(response, "status_code", None),
    ):
        if isinstance(status, int) and 400 <= status < 600:  # noqa: PLR2004 - HTTP's classes of errors
            return status
    return None


def _is_caller(filename: str) -> bool:
    """Return whether a line is about reaching the user's code: it says nothing about the error."""
    return filename.startswith(_CALLERS) or "/site-packages/click/" in filename


def _is_library(filename: str) -> bool:
    return "site-packages" in filename or filename.startswith(_STANDARD_LIBRARY)
