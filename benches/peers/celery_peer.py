"""The Celery peer of step-lane-celery* and chain-*: the same work on RabbitMQ and Redis, with the same promises.

    celery -A celery_peer worker ...        carries tasks out: POST to the agent, its answer is the task's result
    python celery_peer.py fill N BYTES      puts N tasks of so many bytes into the queue
    python celery_peer.py chain N           submits N chains of three tasks, the last of each known as last-<n>
    python celery_peer.py chord N           submits N chords: two tasks side by side and one that needs both

A task is acknowledged after its result is stored, comes again when its worker is lost, is persistent in a quorum
queue, and is published with a confirm. Reads RABBITMQ_PORT and REDIS_PORT from the
environment, and what agent.py does.
"""

import json
import os
import sys

import agent
from celery import Celery, chain, chord

app = Celery(
    "peer",
    broker=f"amqp://guest:guest@127.0.0.1:{os.environ['RABBITMQ_PORT']}//",
    backend=f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0",
)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue_type="quorum",
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    # Of 1, 4 (the default) and 16 the one with the most tasks a second here.
    worker_prefetch_multiplier=16,
)


@app.task(name="step")
def step(incoming, payload, key):
    body = json.dumps({"payload": payload, "incoming_data": incoming})
    return json.loads(agent.post(key, body))


def fill(count, size):
    payload = {"text": "x" * max(0, size - 300), "rows": [1, 2, 3], "unit": "MiB"}
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            step.apply_async((None, payload, f"bench-{number}:s1"), producer=producer)


def submit(shape, count):
    payload = {"target": "latency"}
    for number in range(count):
        key = f"bench-{number}"
        last = f"last-{number}"
        if shape == "chain":
            first = (step.s(None, payload, f"{key}:s1"), step.s(payload, f"{key}:s2"))
            plan = chain(*first, step.s(payload, f"{key}:s3").set(task_id=last))
        else:
            header = [step.s(None, payload, f"{key}:s{place}") for place in (1, 2)]
            plan = chord(header, step.s(payload, f"{key}:s3").set(task_id=last))
        plan.apply_async()


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]), int(sys.argv[3]))
    else:
        submit(sys.argv[1], int(sys.argv[2]))
