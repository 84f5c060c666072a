"""One of the two processes of `test_processes`: PROCESS PORT WORKDIR FAILING. Prints results as one line of JSON."""
import contextlib
import json
import os
import pathlib
import sys

import jax

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.common.errors import SavesFailed
from tests.checkpoints.states import State, abstract_of, accept_any, assert_same_bits, make_state
from tests.checkpoints.test_failed_saves import LARGE, no_large_files


def main() -> None:
    """Saves three steps, the second of which fails on one process, and resumes twice."""
    process, port, workdir, failing = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process, heartbeat_timeout_seconds=10)

    def large(seed: int) -> State:
        return make_state(seed, jax.device_count(), rows=LARGE)

    lines, found = [], {}
    with Checkpointer(workdir, keep=3, log=lines.append) as checkpointer:
        checkpointer.check_space(abstract_of(large(0)))
        checkpointer.save(1, large(1), {"process": process})
        checkpointer.wait()
        with no_large_files() if process == failing else contextlib.nullcontext():
            checkpointer.save(2, large(2), {})
            try:
                checkpointer.wait()
            except SavesFailed as error:
                found["failed"] = str(error)
        checkpointer.save(3, large(3), {"process": process})
        checkpointer.wait()
        found |= {"failures": checkpointer.failures, "steps": checkpointer.steps()}
        step, state = checkpointer.resume(abstract_of(large(0)), accept_any)
        same(state, large(3))
        if process == 0:
            os.unlink(workdir / "checkpoints/3/about/metadata")
        metadata = []
        previous, state = checkpointer.resume(
            abstract_of(large(0)), lambda step, stored: metadata.append(stored["process"]))
        same(state, large(1))
        found |= {"resumed": [step, previous], "metadata": metadata, "latest_valid": checkpointer.latest_valid()}
    print(json.dumps(found | {"lines": lines}))


def same(got: State, expected: State) -> None:
    """Asserts that the part of a state on this process is as expected."""
    assert_same_bits(*(jax.tree.map(lambda leaf: leaf.addressable_data(0), state) for state in (got, expected)))


if __name__ == "__main__":
    main()
