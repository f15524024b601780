"""The peer of step-lane-pika*: the plan's own shape as a step lane.

pika.BlockingConnection; one message after the other: POST to the agent, the answer published to ai.coordination,
the delivery acknowledged. The first argument says whether the broker confirms what is published (confirms) or not
(plain), as in the plan. It reads and writes no JSON, and keeps its connection to the agent.

Reads RABBITMQ_PORT and QUEUE from the environment, and what agent.py does.
"""

import os
import sys

import agent
import pika

connection = pika.BlockingConnection(
    pika.ConnectionParameters("127.0.0.1", int(os.environ["RABBITMQ_PORT"]), heartbeat=0)
)
channel = connection.channel()
if sys.argv[1] == "confirms":
    channel.confirm_delivery()
# It works on one at a time; more in its buffer spare it a wait.
channel.basic_qos(prefetch_count=100)


def carry_out(channel, method, properties, body):
    answer = agent.post(properties.headers["Idempotency-Key"], body)
    channel.basic_publish(
        exchange="ai.coordination",
        routing_key="orchestrator",
        body=answer,
        properties=pika.BasicProperties(
            delivery_mode=2,
            content_type="application/json",
            correlation_id=properties.correlation_id,
            headers=properties.headers,
        ),
        mandatory=True,
    )
    channel.basic_ack(method.delivery_tag)


channel.basic_consume(os.environ["QUEUE"], carry_out)
channel.start_consuming()
