"""The peer of the orchestrate-post row: the plan's own orchestrator in its own shape, written small.

FastAPI in one uvicorn worker; blocking pika on the event loop, publishing without confirms; blocking
redis; a new httpx client for each request to a model that is down. It answers a two-step plan from
the task-type table. Names that the plan does not bind are bound by the benchmark, so that the broker
stores its messages as it stores ours.

Reads RABBITMQ_PORT, REDIS_PORT and OLLAMA_URL from the environment.
"""

import json
import os
from datetime import datetime, timezone
from typing import Any

import httpx
import pika
import redis
from fastapi import FastAPI
from pydantic import BaseModel

AGENTS = {"system_optimization": ["hardware-optimizer", "resource-arbitrator"]}
SHAPE = '{"agents_required": [], "execution_plan": [{"agent": "", "action": "", "dependencies": []}]}'

app = FastAPI()
store = redis.Redis(host="127.0.0.1", port=int(os.environ["REDIS_PORT"]), decode_responses=True)
connection = pika.BlockingConnection(
    # Without heartbeats: the plan's loop never serves them, and the broker would hang up on it.
    pika.ConnectionParameters("127.0.0.1", int(os.environ["RABBITMQ_PORT"]), heartbeat=0)
)
channel = connection.channel()


class TaskRequest(BaseModel):
    task_type: str
    payload: dict[str, Any]
    priority: int = 5
    timeout: int = 300


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


async def plan_for(task: TaskRequest) -> dict[str, Any]:
    prompt = f"Plan {task.task_type} for {json.dumps(task.payload, indent=2)}, answer as JSON: {SHAPE}"
    async with httpx.AsyncClient() as client:
        try:
            answer = await client.post(
                f"{os.environ['OLLAMA_URL']}/api/generate",
                json={"model": "tinyllama", "prompt": prompt, "format": "json", "stream": False},
                timeout=30.0,
            )
            if answer.status_code == 200:
                return json.loads(answer.json()["response"])
        except Exception:
            pass
    agents = AGENTS.get(task.task_type, ["general-agent"])
    return {
        "agents_required": agents,
        "execution_plan": [
            {"agent": agent, "action": f"Process {task.task_type}", "dependencies": []} for agent in agents
        ],
        "resources": {"cpu": "50", "memory": "1024", "gpu": False},
        "estimated_time": 60,
        "confidence": 0.7,
        "risks": ["no model"],
    }


@app.post("/orchestrate")
async def orchestrate(task: TaskRequest) -> dict[str, Any]:
    task_id = f"task_{datetime.now(timezone.utc).timestamp()}"
    plan = await plan_for(task)
    store.hset(f"task:{task_id}", "plan", json.dumps(plan))
    steps = []
    for step in plan["execution_plan"]:
        agent, action = step["agent"], step["action"]
        channel.basic_publish(
            exchange="ai.tasks",
            routing_key=f"task.{agent}.execute",
            body=json.dumps({"task_id": task_id, "agent": agent, "action": action, "timestamp": now()}),
        )
        store.hset(f"task:{task_id}", f"step:{agent}", json.dumps({"status": "dispatched", "time": now()}))
        steps.append({"agent": agent, "status": "dispatched", "action": action})
    return {
        "task_id": task_id,
        "plan": plan,
        "execution": {"task_id": task_id, "execution_status": "in_progress", "steps": steps},
    }


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}
