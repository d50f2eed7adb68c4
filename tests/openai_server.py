"""A small OpenAI-compatible server on the loopback interface, for tests of the ordinary provider path.

It answers `POST …/chat/completions` with the offline rules, or misbehaves as it is told: one entry of
`script` a request, the last one for ever. Left out: everything else that a provider does.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from workshop_lib.agents.conversation.summary import ORDER
from workshop_lib.llm.offline.reply import reply

KEY = "sk-test-0123456789abcdefghijklmnop"


SUMMARISE = ORDER.split("{", 1)[0]


@dataclass
class Raw:
    """An answer as it stands.

    Attributes:
        body: the whole answer, as JSON.
        chunks: its pieces, where it is asked for as a stream; made of the body by default.
        whole: sent in one piece, also where a stream was asked for.
    """

    body: Any
    chunks: list[Any] | None = None
    whole: bool = False


class OpenAIServer:
    """A running server.

    Attributes:
        script: what happens to each request: "rules", "rate_limit", "server_error", "hang", "cut_body",
            "not_json", "bad_key", "quota", "no_model", "no_address", "too_long", "bad_request", a dict that
            is returned as the assistant's message, or a `Raw` answer.
        summaries: the same for requests that want the conversation summed up.
        requests, summary_requests: the bodies received, in order.
    """

    def __init__(self, *script: Any) -> None:
        self.script = list(script) or ["rules"]
        self.summaries: list[Any] = ["rules"]
        self.requests: list[dict[str, Any]] = []
        self.summary_requests: list[dict[str, Any]] = []
        self.released = threading.Event()
        # A protocol number of its own: without it every call would take 40 ms longer.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        self._server = ThreadingHTTPServer(
            listener.getsockname(), _handler(self), bind_and_activate=False
        )
        self._server.socket.close()
        self._server.socket = listener
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        # Looks often whether it shall stop: by default every test would wait half a second for that.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The requests, each once: an activity whose heartbeat was late asks the same again."""
        return [body for n, body in enumerate(self.requests) if body not in self.requests[:n]]

    def next_step(self, script: list[Any]) -> Any:
        """What happens to the request at hand."""
        return script.pop(0) if len(script) > 1 else script[0]

    def close(self) -> None:
        """Stop, letting go of requests that hang."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def openai_server(*script: Any) -> Iterator[OpenAIServer]:
    """A server for the time of a `with` block."""
    server = OpenAIServer(*script)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def scripted_model(settings_env: Callable[..., None], *script: Any) -> Iterator[OpenAIServer]:
    """The provider that the settings name for the time of a `with` block, over LiteLLM's ordinary way."""
    with openai_server(*script) as server:
        settings_env(LLM_MODEL="openai/scripted", LLM_API_BASE=server.base, OPENAI_API_KEY=KEY)
        yield server


def says(text: str | None) -> dict[str, Any]:
    """An assistant's message."""
    return {"role": "assistant", "content": text}


def calling(*calls: tuple[str, Any]) -> dict[str, Any]:
    """An assistant's message that calls tools: their names, and their arguments as they are or as text."""
    made = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
            },
        }
        for number, (name, arguments) in enumerate(calls)
    ]
    return says(None) | {"tool_calls": made}


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            first = body["messages"][0]["content"] or ""
            summary = isinstance(first, str) and first.startswith(SUMMARISE)
            (server.summary_requests if summary else server.requests).append(body)
            sent = self.headers.get("authorization", "")
            if sent != f"Bearer {KEY}":
                self._error(401, f"Incorrect API key provided: {sent.removeprefix('Bearer ')}.")
                return
            step = server.next_step(server.summaries if summary else server.script)
            if isinstance(step, Raw):
                self._raw(body, step)
            else:
                getattr(self, f"_{step}")(body) if isinstance(step, str) else self._message(
                    body, step
                )

        def _raw(self, body: dict[str, Any], answer: Raw) -> None:
            if body.get("stream") and not answer.whole:
                chunks = answer.chunks if answer.chunks is not None else as_chunks(answer.body)
                text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
                self._send(200, (text + "data: [DONE]\n\n").encode(), kind="text/event-stream")
            else:
                self._send(200, json.dumps(answer.body).encode())

        def _rules(self, body: dict[str, Any]) -> None:
            answer = reply(body["messages"], body.get("tools") or [])
            message: dict[str, Any] = {"role": "assistant", "content": answer.text}
            if answer.calls:
                message["tool_calls"] = [
                    {
                        "id": f"call_{n}_{len(body['messages'])}",
                        "type": "function",
                        "function": {"name": name, "arguments": arguments},
                    }
                    for n, (name, arguments) in enumerate(answer.calls)
                ]
            self._message(body, message)

        def _message(self, body: dict[str, Any], message: dict[str, Any]) -> None:
            if body.get("stream"):
                self._stream(body, message)
            else:
                self._send(200, json.dumps(_completion(body, message)).encode())

        def _stream(self, body: dict[str, Any], message: dict[str, Any]) -> None:
            deltas: list[dict[str, Any]] = [
                {"content": word + " "} for word in (message.get("content") or "").split()
            ]
            for index, call in enumerate(message.get("tool_calls") or ()):
                whole = call["function"]["arguments"]
                head = {"id": call["id"], "type": "function", "index": index}
                function = {"name": call["function"]["name"], "arguments": whole[:5]}
                deltas.append({"tool_calls": [{**head, "function": function}]})
                deltas.append(
                    {"tool_calls": [{"index": index, "function": {"arguments": whole[5:]}}]}
                )
            chunks = [_chunk(body, delta) for delta in deltas]
            chunks.append(_chunk(body, {}, finish="stop"))
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            chunks.append({**_chunk(body, {}), "choices": [], "usage": usage})
            text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
            self._send(200, (text + "data: [DONE]\n\n").encode(), kind="text/event-stream")

        def _rate_limit(self, _: dict[str, Any]) -> None:
            self._error(429, "Rate limit reached.", {"retry-after": "7"})

        def _quota(self, _: dict[str, Any]) -> None:
            self._error(429, "You exceeded your quota.", code="insufficient_quota")

        def _server_error(self, _: dict[str, Any]) -> None:
            self._error(500, "The server had an error.")

        def _bad_key(self, _: dict[str, Any]) -> None:
            self._error(401, f"Incorrect API key provided: {KEY}.")

        def _no_model(self, body: dict[str, Any]) -> None:
            self._error(404, f"The model {body['model']} does not exist.", code="model_not_found")

        def _no_address(self, _: dict[str, Any]) -> None:
            self._send(404, b"404 page not found", kind="text/plain")

        def _bad_request(self, _: dict[str, Any]) -> None:
            self._error(400, f"Unrecognized argument for key {KEY} ({KEY[:9]}***{KEY[-5:]}).")

        def _too_long(self, _: dict[str, Any]) -> None:
            self._error(
                400,
                "This model's maximum context length is 8192 tokens.",
                code="context_length_exceeded",
            )

        def _hang(self, _: dict[str, Any]) -> None:
            server.released.wait(30)

        def _cut_body(self, body: dict[str, Any]) -> None:
            whole = json.dumps(_completion(body, {"role": "assistant", "content": "Hello"}))
            self._send(200, whole[: len(whole) // 2].encode())

        def _not_json(self, _: dict[str, Any]) -> None:
            self._send(200, b"<html>bad gateway</html>", kind="text/html")

        def _error(
            self,
            status: int,
            text: str,
            headers: dict[str, str] | None = None,
            code: str | None = None,
        ) -> None:
            body = {"error": {"message": text, "type": "error", "code": code}}
            self._send(status, json.dumps(body).encode(), headers)

        def _send(
            self,
            status: int,
            body: bytes,
            headers: dict[str, str] | None = None,
            kind: str = "application/json",
        ) -> None:
            self.send_response(status)
            for name, value in {
                "content-type": kind,
                "content-length": str(len(body)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _completion(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def _chunk(
    body: dict[str, Any], delta: dict[str, Any], finish: str | None = None
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def as_chunks(body: Any) -> list[Any]:
    """A whole answer as a stream of one piece and its end."""
    try:
        choice = body["choices"][0]
        piece = {**body, "choices": [{"index": 0, "delta": choice.get("message")}]}
        end = {**body, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"} | choice]}
        end["choices"][0].pop("message", None)
        return [piece, end]
    except (LookupError, TypeError, AttributeError):
        return [body]
