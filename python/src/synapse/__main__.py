"""What the host starts: `python -I -X utf8 -u -X faulthandler .../synapse/__main__.py
<entrypoint>`.
"""

import os
import sys

# Programs that multiprocessing spawns import this file again, under another name.
if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    from synapse._start import run

    run(sys.argv[1:])
