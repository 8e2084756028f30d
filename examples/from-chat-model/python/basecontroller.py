class BaseController:
    def __init__(self):
        self._stream_func = None

    def set_stream_func(self, stream_func):
        self._stream_func = stream_func

    def send(self, data):
        if self._stream_func:
            self._stream_func(data)

    def setProperty(self, params):
        setattr(self, params["name"], params["value"])
        return {"status": "ok"}

    def getProperty(self, params):
        return getattr(self, params["name"], None)
