"""A module that has asynchronous handlers alone: its event loop is what reads."""

import synapse


@synapse.handler
async def async_main(payload):
    return payload
