"""Shows JSON from stdin as one `path = value` a line, what differs from run to run by its kind only.

show.py [keys]: with `keys`, numbers are shown as `zero` or `number`.
"""

import json
import re
import sys

KINDS = [
    (re.compile(r"\.(pid|pids\[\d+\])$"), lambda v: "PID" if isinstance(v, int) and v > 0 else v),
    (re.compile(r"\.created$"), lambda v: "TIME" if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", v) else v),
    (re.compile(r"\.ociVersion$"), lambda v: "VERSION" if re.match(r"1\.\d+\.\d+", v) else v),
]
only_keys = "keys" in sys.argv[1:]


def show(path, value):
    if isinstance(value, dict):
        for key in sorted(value):
            show(f"{path}.{key}", value[key])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            show(f"{path}[{index}]", item)
    else:
        for pattern, normal in KINDS:
            if pattern.search(path):
                value = normal(value)
        if only_keys and isinstance(value, (int, float)):
            value = "number" if value else "zero"
        print(f"{path} = {value}")


show("", json.load(sys.stdin))
