"""Ollama's own client library against the shared model server: `ollama_client.py URL`.

Prints one JSON object; what it must hold is the test's to say.
"""

import asyncio
import json
import sys

import ollama


def error(call):
    try:
        call()
    except ollama.ResponseError as refused:
        return [refused.status_code, refused.error]
    return None


async def concurrently(url):
    client = ollama.AsyncClient(host=url)
    question = [{"role": "user", "content": "hello"}]
    answers = [client.chat("tinyllama", question) for _ in range(8)]
    return [answer.message.content for answer in await asyncio.gather(*answers)]


def main(url):
    client = ollama.Client(host=url)
    question = [{"role": "user", "content": "hello"}]
    whole = client.chat("tinyllama", question)
    parts = list(client.chat("tinyllama", question, stream=True))
    generated = client.generate("tinyllama", "hello", options={"num_predict": 8})
    pieces = list(client.generate("tinyllama", "hello", stream=True))
    embedded = client.embed("tinyllama", ["a", "bb"])
    print(
        json.dumps(
            {
                "chat": [whole.message.content, whole.eval_count, whole.done_reason],
                "chat_parts": [part.message.content for part in parts],
                "chat_done": [parts[-1].done, parts[-1].prompt_eval_count],
                "generate": [generated.response, generated.done],
                "generate_parts": [piece.response for piece in pieces],
                "embed": [list(vector) for vector in embedded.embeddings],
                "list": [model.model for model in client.list().models],
                "loaded": client.generate("tinyllama").done_reason,
                "concurrently": asyncio.run(concurrently(url)),
                "not_shared": error(lambda: client.chat("huge", question)),
                "not_shared_streamed": error(lambda: list(client.chat("huge", question, stream=True))),
                "not_here": error(lambda: client.show("tinyllama")),
            }
        )
    )


main(sys.argv[1])
