"""Make the golden files: ``python tests/results/make_golden.py``. For a new schema number, never to mend a test.

``--schema`` writes the JSON schema that the package ships, after a document has got an optional key.
"""

import sys
from pathlib import Path

from synthetic_run import run_records

from autoprune.results import export
from autoprune.results.schema import json_schema

if __name__ == "__main__":
    if "--schema" in sys.argv:
        path = Path(export.__file__).with_name("front-1.schema.json")
        path.write_text(json_schema(export.FrontDocument), encoding="utf-8")
    else:
        golden = Path(__file__).parent / "golden" / "front-1.json"
        golden.write_text(export.front_json(run_records(5)), encoding="utf-8")
