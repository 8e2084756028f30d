"""JSON over HTTP: Starlette on uvicorn, with uvloop and httptools, on a free port of the loopback interface."""

import base64
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

sys.path.append(str(Path(__file__).resolve().parent.parent))
from parent import end_with_parent  # noqa: E402


async def echo(request: Request) -> JSONResponse:
    message = await request.json()
    if isinstance(message, dict) and "base64" in message:
        data = base64.b64decode(message["base64"])
        message = {"base64": base64.b64encode(data).decode("ascii")}
    return JSONResponse(message)


app = Starlette(routes=[Route("/", echo, methods=["POST"])])

if __name__ == "__main__":
    end_with_parent()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, loop="uvloop", http="httptools")
    uvicorn.Server(config).run(sockets=[listener])
