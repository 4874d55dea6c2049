"""Every text of the report, in one place: another language is another `Words`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """The texts, in English. Braces name what is filled in."""

    language: str = "en"
    title: str = "Training report"
    made: str = "{count} · made by onward {version} on {time}"
    one_increment: str = "1 increment"
    increments: str = "{count:,} increments"
    # The bill.
    bill: str = "The bill"
    increment: str = "increment"
    finished: str = "finished"
    unfinished: str = "not finished"
    steps: str = "steps"
    samples: str = "samples"
    seconds: str = "time"
    stored: str = "stored"
    of_retrain: str = "of retrain"
    share_of: str = "{share} of {retrain}"
    so_far: str = "of {retrain}"
    itself: str = "is one"
    unknown: str = "unknown"
    total: str = "total"
    compared: str = "compared"
    strategy: str = "strategy"
    basis: str = "full retrain"
    basis_itself: str = "this was a full training"
    basis_measured: str = "measured"
    basis_scaled: str = "scaled from a sample of {share}"
    basis_estimated: str = "estimated"
    basis_unknown: str = "unknown"
    checkpoints: str = "checkpoints"
    all_dropped: str = "all dropped"
    some_dropped: str = "{count:,} dropped"
    headline: str = "{share} of the steps"
    headline_seconds: str = "{share} of the time"
    headline_samples: str = "{share} of the samples"
    headline_stored: str = "{share} of the bytes"
    headline_under: str = "{used} instead of {retrain}"
    headline_over: str = "by {count} finished, against retraining in full each time"
    nothing_compared: str = "No increment's full retrain is known yet."
    no_increment: str = "This output holds no checkpoint yet; a training run makes the first."
    note_estimated: str = (
        "~ estimated: the retrain's planned steps, at the best pace of any increment"
    )
    note_scaled: str = "~ scaled: an audit on a sample, as if its cost grew with the data"
    note_unknown: str = (
        "a retrain is unknown where checkpoints do not say how long one would be: `onward audit` "
        "measures it"
    )
    note_at_least: str = "≥ at least: some checkpoints that would tell are gone"
    note_total: str = (
        "totals compare the finished increments whose retrain is known; what was trained between "
        "the last checkpoint and a crash is on no bill"
    )
    # Audits.
    audits: str = "Audits"
    audited: str = "{checkpoint} audited: a full retrain takes {steps} steps, {time}, {stored}"
    audited_sample: str = (
        "{checkpoint} audited on a sample of {share}: {steps} steps, {time}, {stored}"
    )
    holdout: str = "holdout"
    metric: str = "metric"
    ours: str = "this model"
    retrain: str = "retrained"
    excess: str = "excess forgetting"
    excess_note: str = (
        "Excess forgetting: by how much the full retrain scores better; below zero, worse."
    )
    more_holdouts: str = "{count:,} more holdouts are not shown."
    not_scored: str = "–"
    # The pictures.
    curves: str = "Training curves"
    curves_note: str = "Optimizer steps over the model's whole life; bands are increments."
    no_curves: str = "No metric was recorded."
    more_metrics: str = "{count:,} more metrics are not drawn."
    last_value: str = "last {value}"
    log_scale: str = "log scale"
    curve_label: str = "{metric} over optimizer steps"
    matrix: str = "Scores on frozen holdouts"
    matrix_note: str = "The lineage of the newest checkpoint; darker is better."
    no_matrix: str = "No increment froze a holdout."
    lineage: str = "Lineage"
    lineage_note: str = "Newest first. Checkpoints between two that matter are only counted."
    lineage_label: str = "Which checkpoint came from which"
    step: str = "step {step:,}"
    increment_n: str = "increment {number:,}"
    latest: str = "latest"
    pinned: str = "pinned"
    dropped: str = "dropped"
    audited_mark: str = "audited"
    between: str = "{count:,} between"
    older: str = "{count:,} older are not drawn"
    # What could not be told.
    notes: str = "Notes"
    unreadable: str = "{checkpoint} could not be read: {why}"


ENGLISH = Words()
