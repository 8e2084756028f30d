from synapse import Controller as BaseController


class Controller(BaseController):
    def __init__(self):
        super().__init__()
        self.model = None
        self.tokenizer = None
        self.counter = 0

    def getModelPath(self, params):
        return {"model": self.model}

    def getTokenizer(self, params):
        return {"tokenizer": self.tokenizer}

    def increment(self, params):
        self.counter += params.get("by", 1)
        print(f"the counter is {self.counter}")
        return {"counter": self.counter}

    def reset(self, params):
        self.counter = 0
        return {"counter": self.counter}

    def testStream(self, params):
        for part in ["partial", "results"]:
            self.send({"data": part})
        return {"done": True}
