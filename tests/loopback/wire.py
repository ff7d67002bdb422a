"""The two APIs' answers, whole and as event streams, in the shapes the real ones send."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.loopback.replies import Asked, Item

Event = dict[str, Any]

_PIECE = 7
"""Characters a delta."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a reply cost."""

    input: int
    cached: int
    output: int
    reasoning: int

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to a request, to be sent in any of four forms."""

    id: str
    asked: Asked
    output: Sequence[Item]
    tokens: Tokens

    def whole(self) -> Event:
        """The answer to a request that asked for no stream."""
        if self.asked.is_chat:
            return self._completion()
        return self._response("completed", self.output, self._usage())

    def stream(self) -> list[bytes]:
        """The events of the answer to a request that asked for a stream, as they are sent."""
        if self.asked.is_chat:
            chunks = [f"data: {json.dumps(one)}\n\n".encode() for one in self._chunks()]
            return [*chunks, b"data: [DONE]\n\n"]
        return [_sse(event) for event in _numbered(self._events())]

    def failed(self, code: str, message: str) -> bytes:
        """The last event of a stream of a reply that went wrong."""
        response = self._failed(code, message)
        return _sse({"type": "response.failed", "response": response, "sequence_number": 99})

    def failed_whole(self, code: str, message: str) -> bytes:
        """The answer, where no stream was asked for, of a reply that went wrong."""
        return json.dumps(self._failed(code, message)).encode()

    def cut_off(self, reason: str) -> bytes:
        """The last event of a stream of a reply that was not finished."""
        response = self._response("incomplete", self.output, self._usage())
        response["incomplete_details"] = {"reason": reason}
        return _sse({"type": "response.incomplete", "response": response, "sequence_number": 99})

    def _events(self) -> Iterator[Event]:
        started = self._response("in_progress", [], None)
        yield {"type": "response.created", "response": started}
        yield {"type": "response.in_progress", "response": started}
        for index, item in enumerate(self.output):
            for event in _item_events(item):
                yield event | {"output_index": index}
        completed = self._response("completed", self.output, self._usage())
        yield {"type": "response.completed", "response": completed}

    def _response(self, status: str, output: Sequence[Item], usage: Event | None) -> Event:
        body = self.asked.body
        return {
            "id": self.id,
            "object": "response",
            "created_at": 1781279604,
            "status": status,
            "background": False,
            "completed_at": 1781279606 if status == "completed" else None,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": None,
            "max_tool_calls": None,
            "model": body["model"],
            "output": list(output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "prompt_cache_key": None,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": None,
            "service_tier": "default",
            "store": body.get("store", True),
            "temperature": 1.0,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": list(body.get("tools") or ()),
            "top_logprobs": 0,
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
            "metadata": {},
        }

    def _failed(self, code: str, message: str) -> Event:
        error = {"code": code, "message": message}
        return self._response("failed", [], None) | {"error": error}

    def _usage(self) -> Event:
        tokens = self.tokens
        return {
            "input_tokens": tokens.input,
            "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
            "output_tokens": tokens.output,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.total,
        }

    def _completion(self) -> Event:
        message: Event = {"role": "assistant", "content": _words(self.output), "refusal": None}
        calls = [_chat_call(item) for item in _calls(self.output)]
        if calls:
            message["tool_calls"] = calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "tool_calls" if calls else "stop",
        }
        return self._chat("chat.completion", [choice]) | {"usage": self._chat_usage()}

    def _chunks(self) -> Iterator[Event]:
        deltas: list[Event] = [{"role": "assistant", "content": "", "refusal": None}]
        deltas += [{"content": piece} for piece in _pieces(_words(self.output) or "")]
        calls = _calls(self.output)
        for index, item in enumerate(calls):
            whole = _chat_call(item)
            arguments = whole["function"].pop("arguments")
            whole["function"]["arguments"] = ""
            deltas.append({"tool_calls": [{"index": index, **whole}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in _pieces(arguments)
            ]
        for delta in deltas:
            yield self._chunk([_choice(delta, None)])
        yield self._chunk([_choice({}, "tool_calls" if calls else "stop")])
        if (self.asked.body.get("stream_options") or {}).get("include_usage"):
            yield self._chunk([]) | {"usage": self._chat_usage()}

    def _chunk(self, choices: Sequence[Event]) -> Event:
        return self._chat("chat.completion.chunk", choices) | {"usage": None}

    def _chat(self, kind: str, choices: Sequence[Event]) -> Event:
        return {
            "id": self.id,
            "object": kind,
            "created": 1781279604,
            "model": self.asked.body["model"],
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": list(choices),
        }

    def _chat_usage(self) -> Event:
        tokens = self.tokens
        return {
            "prompt_tokens": tokens.input,
            "completion_tokens": tokens.output,
            "total_tokens": tokens.total,
            "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": tokens.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


def error_body(code: str, message: str, kind: str) -> Event:
    """The body of an answer that is an error, of a stream's event too."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_event(code: str | None, message: str, kind: str, *, nested: bool) -> bytes:
    """An error in the middle of a stream: as documented, or as it is mostly sent (nested)."""
    inside = {"type": kind, "code": code, "message": message, "param": None}
    shape = {"error": inside} if nested else {key: inside[key] for key in inside if key != "type"}
    return _sse({"type": "error", "sequence_number": 2, **shape})


def chat_error(code: str | int | None, message: str, kind: str) -> bytes:
    """An error in the middle of a stream of chat completions, which has no named events."""
    inside = {"type": kind, "code": code, "message": message, "param": None}
    return f"data: {json.dumps({'error': inside})}\n\n".encode()


def _item_events(item: Item) -> Iterator[Event]:
    place = {"item_id": item["id"]}
    match item["type"]:
        case "message":
            yield _added(item | {"status": "in_progress", "content": []})
            for index, part in enumerate(item["content"]):
                here = place | {"content_index": index}
                yield {"type": "response.content_part.added", "part": part | {"text": ""}, **here}
                for piece in _pieces(part["text"]):
                    yield _delta("response.output_text", piece, **here, logprobs=[])
                yield {
                    "type": "response.output_text.done",
                    "text": part["text"],
                    "logprobs": [],
                    **here,
                }
                yield {"type": "response.content_part.done", "part": part, **here}
        case "function_call":
            yield _added(item | {"status": "in_progress", "arguments": ""})
            for piece in _pieces(item["arguments"]):
                yield _delta("response.function_call_arguments", piece, **place)
            yield {
                "type": "response.function_call_arguments.done",
                "arguments": item["arguments"],
                "name": item["name"],
                **place,
            }
        case "reasoning":
            yield _added(item | {"summary": []})
            for index, part in enumerate(item["summary"]):
                here = place | {"summary_index": index}
                start = part | {"text": ""}
                yield {"type": "response.reasoning_summary_part.added", "part": start, **here}
                for piece in _pieces(part["text"]):
                    yield _delta("response.reasoning_summary_text", piece, **here)
                yield {
                    "type": "response.reasoning_summary_text.done",
                    "text": part["text"],
                    **here,
                }
                yield {"type": "response.reasoning_summary_part.done", "part": part, **here}
    yield {"type": "response.output_item.done", "item": item}


def _added(item: Item) -> Event:
    return {"type": "response.output_item.added", "item": item}


def _delta(kind: str, piece: str, **place: Any) -> Event:
    # Padding against guessing by length, as the real API adds it.
    return {"type": f"{kind}.delta", "delta": piece, "obfuscation": "x" * 5, **place}


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def _numbered(events: Iterable[Event]) -> Iterator[Event]:
    for number, event in zip(itertools.count(), events, strict=False):
        yield event | {"sequence_number": number}


def _sse(event: Mapping[str, Any]) -> bytes:
    # Not escaped to ASCII: a character may be split between two packets.
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def _words(output: Sequence[Item]) -> str | None:
    said = [part["text"] for item in output for part in item.get("content") or ()]
    return "".join(said) if said else None


def _calls(output: Sequence[Item]) -> list[Item]:
    return [item for item in output if item["type"] == "function_call"]


def _chat_call(item: Item) -> Event:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _choice(delta: Event, finish: str | None) -> Event:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
