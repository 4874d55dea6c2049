"""One process: one library, one scenario, saving or restoring. Prints one line of JSON.

python -m benchmarks.checkpointing.worker save --subject onward --scenario a --folder DIR
python -m benchmarks.checkpointing.worker restore --subject onward … --last 9
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

SAVING_SEED, RESTORING_SEED = 1, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["save", "restore"])
    parser.add_argument("--subject", required=True)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--last", type=int, default=0, help="the checkpoint to restore")
    parser.add_argument("--variant", default="", help="how to restore")
    arguments = parser.parse_args()
    out, sys.stdout = sys.stdout, sys.stderr  # libraries may print; the answer stands alone
    print(json.dumps(run(arguments)), file=out)


def run(arguments: argparse.Namespace) -> dict[str, object]:
    from benchmarks.checkpointing import restoring, saving
    from benchmarks.checkpointing.scenarios import SCENARIOS
    from benchmarks.checkpointing.subjects import subject_class

    try:
        kind = subject_class(arguments.subject)
    except ImportError as error:
        return {"unavailable": str(error)}
    seed = SAVING_SEED if arguments.what == "save" else RESTORING_SEED
    training = SCENARIOS[arguments.scenario].build(arguments.scale, seed)
    about = {
        "asynchronous": kind.asynchronous,
        "setup": kind.setup,
        "variants": list(kind.variants),
    }
    if arguments.what == "save":
        arguments.folder.mkdir(parents=True)
        subject = kind(training, arguments.folder)
        return about | saving.measure(subject, training, arguments.saves)
    training.step()
    subject = kind(training, arguments.folder)
    return restoring.measure(subject, training, last=arguments.last, variant=arguments.variant)


if __name__ == "__main__":
    main()
