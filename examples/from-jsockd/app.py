# The examples of JSockD's Python client. Their imports are all that was changed: `jsockdclient` is `synapse.javascript.jsockd`.
from synapse.javascript.jsockd import (
    DefaultConfig,
    JSockDJSException,
    init_jsockd_client,
    init_jsockd_client_via_auto_download,
)

config = DefaultConfig()
# Optional: attach a logger for jsockd stderr lines
config.Logger = lambda ts, level, msg: print(f"{ts} [{level}] {msg}")

# Optionally provide a source map that matches your bytecode module (if using one)
# config.SourceMap = "example_module.mjs.map"

client = init_jsockd_client_via_auto_download(config)
try:
    # The query is a JS function of the form (m, p) => ...
    # - m is an internal object with JSockD helpers
    # - p is your parameter (JSON value)
    result = client.run("(_, name) => 'Hello ' + name", "World")
    print(result)  # "Hello World"
except JSockDJSException as e:
    # e.result_json contains the server-side JS error details (JSON)
    print("JavaScript exception:", e.result_json)
finally:
    client.close()


config = DefaultConfig()
client = init_jsockd_client(config, "/path/to/jsockd")
try:
    result = client.run("(_, n) => n + 1", 99)
    print(result)  # 100
finally:
    client.close()


config = DefaultConfig()
config.NThreads = 2
config.MaxIdleTimeUs = 0
config.MaxCommandRuntimeUs = 0
config.TimeoutUs = 15_000_000
config.SkipJSockDVersionCheck = False
config.LogPrefix = "myapp"
client = init_jsockd_client_via_auto_download(config)

# Typed
result = client.run("(_, n) => n + 1", 41)
assert result == 42

# Raw
raw_json = client.run_raw("(_, n) => n + 1", "41")
assert raw_json.strip() == "42"


def on_message(msg):
    # msg is a Python value decoded from JSON
    # Return any JSON-serializable Python value
    if msg == "foo":
        return "ack-1"
    return "ack-2"


result = client.run(
    "(m, p) => { JSockD.sendMessage('foo'); return JSockD.sendMessage('bar'); }",
    99,
    message_handler=on_message,
)
assert result == "ack-2"


def on_message_raw(msg_json: str) -> str:
    # msg_json is a JSON string (e.g., "\"foo\"")
    # Return a JSON string (e.g., "\"ack-1\"")
    if msg_json.strip() == "\"foo\"":
        return "\"ack-1\""
    return "\"ack-2\""


raw_json = client.run_raw(
    "(m, p) => { JSockD.sendMessage('foo'); return JSockD.sendMessage('bar'); }",
    "99",
    message_handler=on_message_raw,
)
assert raw_json == "\"ack-2\""

client.close()
print("all of it")
