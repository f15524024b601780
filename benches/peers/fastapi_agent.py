"""One agent as most are written: FastAPI in a uvicorn worker. The row `up` measures how long it takes to answer."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Step(BaseModel):
    task_id: str
    payload: dict = {}


@app.post("/process")
async def process(step: Step) -> dict:
    return {"status": "completed", "task_id": step.task_id}
