"""Ways not to forget, ways to tell whether it worked, and what it cost."""
