"""Audit of a data set: copies, wrong labels, faults of files and of genres."""
