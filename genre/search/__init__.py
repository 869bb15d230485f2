"""Search: which song is this snippet from, and what is this song like."""
