"""One file for each page, or for a few that share what they show."""
