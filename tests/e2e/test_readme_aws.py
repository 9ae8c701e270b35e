"""The README's recipe for AWS starts the pipeline: with its variables alone, and with local addresses as their values."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests.e2e.live_stack import INSTREAM, LiveStack
from tests.worlds.waiting import HANGS_S

pytestmark = pytest.mark.stack

README = (Path(__file__).parents[2] / "README.md").read_text()
RECIPE = dict(
    part.split("=", 1)
    for block in re.findall(r"^```\n(INSTREAM_BUCKET=.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    for part in block.split()
)
KEY = "from-the-recipe"
SIZES = ("INSTREAM_PARTITIONS", "INSTREAM_CHECKPOINT_PARTITIONS", "INSTREAM_MIN_INSYNC_REPLICAS")
"""One broker with the topics of the local stack: AWS has the defaults."""


def environment_of(stack: LiveStack, home: Path) -> dict[str, str]:
    """The recipe's variables with local values; a variable for which no value is here fails the test."""
    local = stack.stack.environment
    name = f"recipe-{uuid.uuid4().hex[:8]}"
    values = {
        "INSTREAM_BUCKET": name, "INSTREAM_STREAM": name, "INSTREAM_REGISTRY_TABLE": name,
        "INSTREAM_KAFKA": local["INSTREAM_KAFKA"], "INSTREAM_REPLICATION_FACTOR": "1",
        "INSTREAM_WAREHOUSE_URL": local["INSTREAM_WAREHOUSE_URL"],
        "INSTREAM_COPY_IAM_ROLE": "arn:aws:iam::123456789012:role/copy", "INSTREAM_WRITE_KEYS": f"{KEY}:browser",
        **{name: RECIPE[name] for name in RECIPE if name.endswith("_HOST")},
    }  # fmt: skip
    aws = {key: value for key, value in local.items() if key.startswith("AWS_") and key != "AWS_DEFAULT_REGION"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INSTREAM_", "AWS_", "PG"))}
    free_ports = {"INSTREAM_COLLECTOR_PORT": "0", "INSTREAM_WEB_PORT": "0", "INSTREAM_HOME": str(home)}
    return kept | aws | {key: local[key] for key in SIZES} | free_ports | {key: values[key] for key in RECIPE}


def test_the_recipe_for_aws_starts(stack: LiveStack, tmp_path: Path) -> None:
    environment = environment_of(stack, tmp_path)
    done = subprocess.run([INSTREAM, "init"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    command = [sys.executable, "-m", "app.collector"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            said = []
            while "collector ready" not in (said or [""])[-1]:
                said.append(process.stdout.readline())
                assert said[-1], "".join(said)
            (address,) = json.loads(said[-1])["addresses"]
            assert address[0] == "0.0.0.0", "a load balancer reaches it"
            event = {"event_id": "e", "event_type": "page_view", "page_view_id": "p", "occurred_at": 1767225600000}
            body = json.dumps(event).encode()
            headers = {"X-Write-Key": KEY, "Content-Type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{address[1]}/v1/events", body, headers)
            with urllib.request.urlopen(request, timeout=HANGS_S) as answer:
                assert json.loads(answer.read())["accepted"] == 1
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
