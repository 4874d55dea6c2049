"""What checkpointing costs a training loop: Onward and its peers, measured in the same run."""
