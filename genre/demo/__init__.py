"""The synthetic songs of the demo data set."""
