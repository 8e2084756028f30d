import json
import sys

from controller import Controller


class Router:
    def __init__(self):
        self.controller = Controller()
        self.controller.set_stream_func(self.stream)

    def stream(self, data):
        print("__STREAM__" + json.dumps(data), flush=True)

    def handle(self, message):
        method = getattr(self.controller, message.get("method", ""), None)
        if method is None or not callable(method):
            return {"error": f"Unknown method: {message.get('method')}"}
        try:
            return {"result": method(message.get("params", {}))}
        except Exception as e:
            return {"error": str(e)}

    def run(self):
        for line in sys.stdin:
            line = line.strip()
            if not line:
                continue
            reply = self.handle(json.loads(line))
            try:
                text = json.dumps(reply)
            except TypeError as e:
                text = json.dumps({"error": str(e)})
            print(text, flush=True)
