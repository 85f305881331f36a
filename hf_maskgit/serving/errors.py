"""What a request can meet, as OpenAI's clients read it."""

from typing import Any


class Refusal(Exception):
    """A request that is not served: a sentence, and how clients of OpenAI tell it.

    Attributes:
        status: of HTTP.
        kind: the `type` of the error.
        code: the `code` of the error.
    """

    status = 400
    kind = "invalid_request_error"
    code: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The answer, in OpenAI's words."""
        told = {"message": str(self), "type": self.kind, "param": None, "code": self.code}
        return {"error": told}


class BadRequest(Refusal):
    """What is asked cannot be done; asking again would not help."""


class NoSuchModel(Refusal):
    """Another model is served here."""

    status, code = 404, "model_not_found"


class NoSuchPlace(Refusal):
    """No such address, or not by this method."""

    status, code = 404, "not_found"


class TooLarge(Refusal):
    """The body is longer than the server reads."""

    status, code = 413, "request_too_large"


class QueueFull(Refusal):
    """Too much is waiting; later there will be room."""

    status, kind, code = 429, "rate_limit_error", "queue_full"


class TimeIsUp(Refusal):
    """The request took longer than one may."""

    status, kind, code = 408, "timeout_error", "time_is_up"

    def __init__(self, seconds: float | None) -> None:
        super().__init__(
            f"The request took longer than {seconds:g} seconds, which is all that this server "
            "gives one; ask for fewer steps or tokens, or start it with a greater `max_seconds`."
        )


class Unavailable(Refusal):
    """The server is about to stop."""

    status, kind, code = 503, "server_error", "shutting_down"


class Failure(Refusal):
    """A fault of the server's own."""

    status, kind, code = 500, "server_error", "internal_error"

    def __init__(self) -> None:
        super().__init__("The server failed at this request; its log says where.")
