"""What goes wrong with TLS on the way to Postgres, in words for the operator.

asyncpg raises for it what it raises for other things too: FileNotFoundError is a certificate that is not there as well
as a Unix socket.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from stacworker.errors import Unavailable

ERROR_CLASS = "tls"

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
# The beginnings of asyncpg's words about TLS; none of them quotes a password.
_SETTINGS = ("`sslmode`", "`sslnegotiation`", "root certificate file", "No such TLS", "Unsupported TLS")


def tls_trouble(error: Exception, dsn: str | None) -> Unavailable | None:
    """Return what to say when TLS is why there is no connection, else None. `dsn` is what was connected with."""
    text = str(error).partition("\n")[0]
    if isinstance(error, ssl.SSLCertVerificationError):
        told = f"the server's certificate is not accepted: {error.verify_message}"
    elif isinstance(error, ssl.SSLError) and not isinstance(error, _ENDED):
        told = f"{_unusable_file(dsn) or 'no agreement with the server'}: {text}"
    elif isinstance(error, OSError) and "rejected SSL upgrade" in text:
        told = "the server does not speak TLS, and sslmode asks for it"
    elif isinstance(error, OSError):
        file = _unusable_file(dsn)
        if file is None:
            return None
        told = f"{file}: {error.strerror or text}"
    elif text.startswith(_SETTINGS):
        told = text
    else:
        return None
    advice = "sslmode and sslrootcert in database.dsn, or PGSSLMODE and PGSSLROOTCERT"
    return Unavailable(f"connecting with TLS: {told} ({advice})", dependency="database", error_class=ERROR_CLASS)


def _unusable_file(dsn: str | None) -> str | None:
    """Return the name and path of the first file of TLS settings that cannot be read or holds no certificate."""
    query = parse_qs(urlsplit(dsn or "").query)
    for name in _FILES:
        path = query.get(name, [os.environ.get(f"PG{name.upper()}", "")])[-1]
        if path and not _is_usable(path):
            return f"{name} {path}"
    return None


def _is_usable(path: str) -> bool:
    try:
        return b"-----BEGIN " in Path(path).read_bytes()
    except OSError:
        return False
