"""A fake gcloud: records its calls, and answers as the test's script says.

Called with the folder of the play before gcloud's own arguments. There `calls` gets a line of JSON for each call, and
NAME.json, where there is one, holds the answers to calls of a kind, one after another, the last again and again. The
kinds are create, describe, delete, scp, ssh and report, which is asking a worker how the run stands. An answer is text
to print, or {"error": text, "status": number}. A description without a play is of a request that is not there.
"""
import fcntl
import json
import pathlib
import sys

NOT_FOUND = "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource 'x' was not found"


def main(folder: pathlib.Path, arguments: list[str]) -> int:
    """Notes the call and answers it; returns the exit status."""
    kind = arguments[3]
    if any(word.startswith("--command=") and " report " in word for word in arguments):
        kind = "report"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(folder / "calls", "a") as calls:
            calls.write(json.dumps(arguments) + "\n")
        play = folder / f"{kind}.json"
        answers = json.loads(play.read_text()) if play.exists() else []
        if len(answers) > 1:
            play.write_text(json.dumps(answers[1:]))
    answer = answers[0] if answers else {"error": NOT_FOUND, "status": 1} if kind == "describe" else ""
    if isinstance(answer, dict):
        print(answer["error"], file=sys.stderr)
        return answer["status"]
    sys.stdout.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2:]))
