"""The stages of the genre pipeline and the commands people run, one module each."""
