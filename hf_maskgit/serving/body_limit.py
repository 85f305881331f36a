"""Bodies of requests: read up to a length, and no further."""

import json
from typing import Any

from fastapi import Request

from ..core.options import shown
from .errors import BadRequest, TooLarge


async def read_json(request: Request, max_bytes: int) -> Any:
    """Read the JSON of a request.

    Args:
        request: whose body is read.
        max_bytes: the longest body.

    Raises:
        TooLarge: for a longer one, which is not read to its end.
        BadRequest: for what is no JSON.
    """
    sentence = f"The body is longer than {max_bytes} bytes, the most that this server reads."
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise TooLarge(sentence)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise TooLarge(sentence)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is no JSON in UTF-8, got {shown(bytes(body[:40]))}.") from error
    if b"\\ud" in body.lower():  # where JSON may write what is no text
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise BadRequest(
                "The body holds half of a surrogate pair, such as \\ud83d, which is no character; "
                "send the whole pair, or the character itself."
            ) from error
    return found
