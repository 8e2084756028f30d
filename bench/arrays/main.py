"""The handlers that `npm run bench` calls with arrays: with numpy, as most who send arrays have."""

import numpy
import synapse


@synapse.handler
def main(payload):
    return payload


@synapse.handler
def fresh(payload):
    """An array that was made here, rather than the one that came in."""
    return payload.copy()
