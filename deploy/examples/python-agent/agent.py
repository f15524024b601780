#!/usr/bin/env python3
"""An agent in Python's standard library alone.

It counts words. All that makes it an agent is below: POST /process with JSON in and out, GET /health,
and the same answer for the same Idempotency-Key. It knows nothing of brokers, tokens or the mesh.
"""

import argparse
import json
import signal
import sys
import threading
from collections import Counter, OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 8 * 1024 * 1024
MAX_ANSWERS = 1000  # redeliveries come within seconds; older answers are not asked for again
TOP = 10


class BadInput(Exception):
    """What the caller has to mend; answered with 422."""


def texts(value):
    """Every text in a JSON value, the nested ones included."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def words(text):
    kept = (c if c.isalnum() or c in "'-" else " " for c in text)
    return [w.strip("'-").lower() for w in "".join(kept).split() if w.strip("'-")]


def process(step):
    """The work: word counts of the payload's text, or of all its texts, or of earlier results."""
    payload = step.get("payload") or {}
    incoming = step.get("incoming_data") or {}
    if not isinstance(payload, dict) or not isinstance(incoming, dict):
        raise BadInput("payload and incoming_data must be objects")
    if "text" in payload and not isinstance(payload["text"], str):
        raise BadInput("payload.text must be a string")
    found = [payload["text"]] if "text" in payload else list(texts(payload)) or list(texts(incoming))
    if not found:
        raise BadInput("there is no text: give payload.text")
    counts = Counter(word for text in found for word in words(text))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "agent": "word-counter",
        "action": step.get("action"),
        "characters": sum(map(len, found)),
        "words": sum(counts.values()),
        "different_words": len(counts),
        "top": [{"word": word, "count": count} for word, count in ranked[:TOP]],
    }


class Answers:
    """First answers by Idempotency-Key; a key that is being worked on is waited for."""

    def __init__(self):
        self._lock = threading.Lock()
        self._by_key = OrderedDict()

    def first(self, key, work):
        with self._lock:
            slot = self._by_key.setdefault(key, {"lock": threading.Lock(), "answer": None})
            while len(self._by_key) > MAX_ANSWERS:
                self._by_key.popitem(last=False)
        with slot["lock"]:
            if slot["answer"] is None:
                slot["answer"] = work()
            return slot["answer"]


def answer_to(body):
    try:
        step = json.loads(body)
        if not isinstance(step, dict):
            raise BadInput("the body must be a JSON object")
        return 200, process(step)
    except (BadInput, ValueError, RecursionError) as error:
        return 422, {"error": {"code": "invalid_input", "detail": str(error)}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection open between steps
    timeout = 5  # ends idle connections, so that the process can end too
    # Head and body leave as one packet each at once; without this every answer waits for an ACK.
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "healthy"})
        else:
            self.answer(404, {"error": {"code": "not_found", "detail": "there are /process and /health"}})

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if self.path != "/process" or not 0 <= length <= MAX_BODY:
            self.close_connection = True  # the body is not read
            status = 404 if self.path != "/process" else 411 if length < 0 else 413
            self.answer(status, {"error": {"code": "refused", "detail": f"POST /process, at most {MAX_BODY} bytes"}})
            return
        body = self.rfile.read(length)
        key = self.headers.get("Idempotency-Key")
        if key and len(key) <= 512:
            self.answer(*self.server.answers.first(key, lambda: answer_to(body)))
        else:
            self.answer(*answer_to(body))

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass  # one line per step is what the sidecar's metrics are for


def main():
    parser = argparse.ArgumentParser(description="An agent that counts words.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9101)
    options = parser.parse_args()
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    server.daemon_threads = False  # open requests are answered before the process ends
    server.answers = Answers()
    stop = lambda *_: threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"word-counter listens on {options.host}:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
