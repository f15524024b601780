"""How the peers in Python call the agent: with the client that HTTP names, over connections that are kept.

requests is what most Python programs use, httpx what the plan does (which opens a connection for each call); urllib3
is the leanest of those that do not ask for asyncio, and stands under requests itself. Reads HTTP and AGENT_URL from the
environment.
"""

import os

URL = os.environ["AGENT_URL"]
CLIENT = os.environ.get("HTTP", "requests")

# Connections are opened by the first call, which is after Celery's fork; as many as it has threads.
if CLIENT == "urllib3":
    import urllib3

    pool = urllib3.PoolManager(maxsize=16)

    def send(body, headers):
        answer = pool.request("POST", URL, body=body, headers=headers)
        return answer.status, answer.data

elif CLIENT == "httpx":
    import httpx

    client = httpx.Client(trust_env=False)

    def send(body, headers):
        answer = client.post(URL, content=body, headers=headers)
        return answer.status_code, answer.content

else:
    import requests

    session = requests.Session()
    # The machine's proxies are looked for at each call otherwise.
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=16))

    def send(body, headers):
        answer = session.post(URL, data=body, headers=headers)
        return answer.status_code, answer.content


def post(key, body):
    """The agent's answer to `body`, under an idempotency key."""
    headers = {"content-type": "application/json", "idempotency-key": key}
    status, answer = send(body, headers)
    if status != 200:
        raise RuntimeError(f"the agent answered {status}")
    return answer
