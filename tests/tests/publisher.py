"""A publisher of the plan: pika, one message after the other, as its integration layer does it.

Reads what to do as JSON from standard input, writes what it heard as JSON to standard output:

    {"url", "declare": bool, "seconds",
     "messages": [{"exchange", "key", "body", "reply": "queue" | "direct" | null, "correlation_id", "priority"}],
     "answers": how many to wait for, "events": texts, each of which some event has to hold}

    {"answers": [{"body", "correlation_id", "content_type"}], "events": [{"body", "headers", "key"}]}
"""

import json
import sys
import time

import pika

DIRECT = "amq.rabbitmq.reply-to"


def declare(channel):
    """What the plan's set-up declares, as far as this mesh declares it too."""
    channel.exchange_declare(exchange="ai.tasks", exchange_type="topic", durable=True)
    channel.exchange_declare(exchange="ai.events", exchange_type="fanout", durable=True)
    channel.exchange_declare(exchange="ai.coordination", exchange_type="direct", durable=True)
    channel.queue_declare(queue="ai.priority.tasks", durable=True, arguments={"x-max-priority": 10})


def main():
    wanted = json.load(sys.stdin)
    connection = pika.BlockingConnection(pika.URLParameters(wanted["url"]))
    channel = connection.channel()
    if wanted.get("declare"):
        declare(channel)
    answers, events = [], []

    def answered(_channel, _method, properties, body):
        answers.append(
            {
                "body": json.loads(body),
                "correlation_id": properties.correlation_id,
                "content_type": properties.content_type,
            }
        )

    def heard(_channel, method, properties, body):
        events.append({"body": json.loads(body), "headers": properties.headers or {}, "key": method.routing_key})

    own = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.basic_consume(queue=own, on_message_callback=answered, auto_ack=True)
    channel.basic_consume(queue=DIRECT, on_message_callback=answered, auto_ack=True)
    listener = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange="ai.events", queue=listener)
    channel.basic_consume(queue=listener, on_message_callback=heard, auto_ack=True)

    for message in wanted["messages"]:
        reply = {"queue": own, "direct": DIRECT}.get(message.get("reply"))
        channel.basic_publish(
            exchange=message["exchange"],
            routing_key=message["key"],
            body=message["body"],
            properties=pika.BasicProperties(
                delivery_mode=2,
                priority=message.get("priority"),
                reply_to=reply,
                correlation_id=message.get("correlation_id"),
            ),
        )

    def missing():
        texts = [json.dumps(event["body"]) for event in events]
        return [text for text in wanted.get("events", []) if not any(text in there for there in texts)]

    deadline = time.monotonic() + wanted.get("seconds", 60)
    while len(answers) < wanted.get("answers", 0) or missing():
        if time.monotonic() > deadline:
            print(f"{len(answers)} answers, missing events {missing()}", file=sys.stderr)
            break
        connection.process_data_events(time_limit=0.1)
    json.dump({"answers": answers, "events": events}, sys.stdout)
    connection.close()


main()
