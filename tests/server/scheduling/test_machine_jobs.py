"""Jobs with real agents, from submission to their end."""

from __future__ import annotations

from tests.server.scheduling.workshop import Workshop

PLAIN = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--train_url")
args = parser.parse_args()
print("hello from the script")
pathlib.Path(args.train_url, "model.txt").write_text("weights")
"""


def test_a_plain_script_runs_and_the_job_succeeds(workshop: Workshop) -> None:
    """A job goes from queued to succeeded; its output and its log are there."""
    job = workshop.submit(PLAIN)

    assert workshop.finish(job) == ["succeeded"], workshop.job(job).reason

    [attempt] = workshop.attempts(job)
    assert attempt.state == "exited"
    assert attempt.exit_status == 0
    assert (workshop.folder / "outputs/out/model.txt").read_text() == "weights"
    assert "hello from the script" in workshop.log(job)
    assert workshop.moves(job) == [
        (None, "queued", "running"),
        (attempt.id, "created", "leased"),
        (attempt.id, "leased", "running"),
        (attempt.id, "running", "exited"),
        (None, "running", "succeeded"),
    ]
