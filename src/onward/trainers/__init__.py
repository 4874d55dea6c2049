"""Callbacks for trainers that own the training loop: one file each, the same promises in each."""
