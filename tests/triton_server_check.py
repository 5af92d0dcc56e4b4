"""An exported model in a real Triton server, beside `generate`: `python tests/triton_server_check.py URL BUNDLE [MODEL]`.

No test: it takes a server (docs/deployment.md says how to start one without a container) and the package `tritonclient[grpc]`,
whose pins are not those of foveal's tests. It exits with 1 at the first difference.

    URL      of the server's gRPC, as 127.0.0.1:8001
    BUNDLE   what was exported
    MODEL    its name in the server; that of the bundle's directory if not given
"""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

import foveal

PROMPTS = ["It was a dark and stormy night, and", "The sea", "Once upon a time", "He said", "No", "Why", "She", "I have"]
MANY = 32
"""Requests at once, more than slots and fewer than slots and queue hold."""
SETTINGS = {"max_new_tokens": 48, "temperature": 0.8}


class Client:
    """One stream to a model, for any number of requests at once."""

    def __init__(self, url: str, model: str) -> None:
        self.model, self._client, self._answers = model, triton.InferenceServerClient(url), dict[str, queue.SimpleQueue[Any]]()
        self._client.start_stream(self._came)

    def _came(self, result: Any, error: Any) -> None:
        response = None if result is None else result.get_response()
        key = next(iter(self._answers)) if response is None else response.id  # an error says not whose it is
        self._answers[key].put(error or result)

    def send(self, key: str, prompt: str | None, settings: dict[str, Any], sequence: int, start: bool, end: bool) -> None:
        """A request; its answers are those of `responses` with this key."""
        self._answers[key] = queue.SimpleQueue()
        given = {"text_input": prompt, "sampling_parameters": json.dumps(settings)}
        inputs = []
        for name, value in given.items():
            if value is not None:
                inputs.append(triton.InferInput(name, [1], "BYTES"))
                inputs[-1].set_data_from_numpy(np.array([value.encode()], np.object_))
        self._client.async_stream_infer(
            self.model,
            inputs,
            request_id=key,
            sequence_id=sequence,
            sequence_start=start,
            sequence_end=end,
            enable_empty_final_response=True,
        )

    def responses(self, key: str) -> Iterator[tuple[str, list[int], str]]:
        """Text, ids and finish reason of each; raises Triton's error."""
        while True:
            found = self._answers[key].get(timeout=60)
            if isinstance(found, Exception):
                del self._answers[key]
                raise found
            if found.as_numpy("text_output") is not None:
                text, reason = (found.as_numpy(name)[0].decode() for name in ("text_output", "finish_reason"))
                yield text, found.as_numpy("output_ids").tolist(), reason
            if found.get_response().parameters["triton_final_response"].bool_param:
                del self._answers[key]
                return

    def cancel(self) -> None:
        """Go away, with whatever is being answered."""
        self._client.stop_stream(cancel_requests=True)
        self._client.start_stream(self._came)

    def close(self) -> None:
        """End the stream: its thread would keep this program from ending."""
        self._client.stop_stream()

    def answer(self, *request: Any) -> tuple[str, list[int], str]:
        """All of a request's text and ids, and why it ended."""
        self.send("only", *request)
        return joined(self.responses("only"))


def joined(responses: Iterator[tuple[str, list[int], str]]) -> tuple[str, list[int], str]:
    """The responses to one request as one."""
    found = list(responses)
    return "".join(text for text, _, _ in found), [token for _, ids, _ in found for token in ids], found[-1][2]


def check(what: str, holds: bool) -> None:
    """Say what holds; end if it does not."""
    print(("ok   " if holds else "WRONG"), what)
    if not holds:
        sys.exit(1)


def check_texts(client: Client, model: foveal.Model) -> None:
    """One request, and as many at once as there are prompts."""
    alone = []
    for seed, prompt in enumerate(PROMPTS):
        pieces = model.generate(prompt, **SETTINGS, seed=seed)
        alone.append(("".join(pieces), pieces.ids, pieces.finish_reason))
    first = client.answer(PROMPTS[0], {**SETTINGS, "seed": 0}, 1, True, True)
    check("a text is that of generate, with the same ids and finish reason", first == alone[0])
    began = time.perf_counter()
    for number, prompt in enumerate(PROMPTS):
        client.send(str(number), prompt, {**SETTINGS, "seed": number}, 100 + number, True, True)
    together = [joined(client.responses(str(number))) for number in range(len(PROMPTS))]
    seconds = time.perf_counter() - began
    check(
        f"so are {len(PROMPTS)} at once ({sum(len(ids) for _, ids, _ in together) / seconds:.0f} tokens/s)", together == alone
    )


def check_sequences(client: Client, model: foveal.Model) -> None:
    """State stays on the server between requests."""
    session, last = model.session(), []
    settings = {"max_new_tokens": 16, "temperature": 0}
    for number, prompt in enumerate((" a dark", " night", " and")):
        _, ids, _ = client.answer(prompt, settings, 7, number == 0, number == 2)
        logits = session.advance([[*last, *model.required_tokenizer().encode(prompt)]], last_only=True)
        expected: list[int] = []
        while len(expected) < 16:
            expected.append(int(logits[0, -1].argmax()))
            if len(expected) < 16:
                logits = session.advance([expected[-1:]], last_only=True)
        check(f"request {number + 1} of a sequence goes on where it stood", ids == expected)
        last = expected[-1:]


def check_ends(client: Client) -> None:
    """A last request needs no prompt."""
    client.answer("It was", {"max_new_tokens": 1}, 30, True, False)
    check("a request that only ends a sequence generates nothing", client.answer(None, {}, 30, False, True) == ("", [], "end"))


def check_refusals(client: Client) -> None:
    """In a sentence each; the server goes on."""
    for prompt, settings, sequence, start, end, sentence in [
        ("a", {"top_q": 1}, 20, True, True, 'there is no setting "top_q"'),
        ("a" * 100_000, {}, 21, True, True, "a sequence of this service room for"),
        ("a", {}, 22, False, False, "must specify the START flag"),
        (None, {}, 23, True, True, "the request has no prompt"),
    ]:
        try:
            client.answer(prompt, settings, sequence, start, end)
        except Exception as error:
            check(f"refused: {sentence}", sentence in str(error))
        else:
            check(f"refused: {sentence}", False)


def check_cancelling(client: Client) -> None:
    """A stream that is torn down frees its slots, also those that its requests wait for."""
    long = {"max_new_tokens": 400, "temperature": 0}
    for number in range(MANY):
        client.send(f"gone {number}", "It was", long, 300 + number, True, True)
    next(client.responses("gone 0"))
    client.cancel()
    began = time.perf_counter()
    client.answer("It was", {"max_new_tokens": 1}, 400, True, True)
    seconds = time.perf_counter() - began
    check(f"a client that leaves leaves its slots to others ({seconds:.3f} s)", seconds < 0.5)


def main() -> None:
    """Run all."""
    url, bundle = sys.argv[1], Path(sys.argv[2])
    client = Client(url, sys.argv[3] if len(sys.argv) > 3 else bundle.resolve().name.removesuffix(".bundle"))
    model = foveal.load(bundle, threads=1)
    check_texts(client, model)
    check_sequences(client, model)
    check_ends(client)
    check_refusals(client)
    check_cancelling(client)
    client.close()


if __name__ == "__main__":
    main()
