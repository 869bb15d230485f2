"""The library: audio, features, models, evaluation, search and the web service. Nothing here is run by itself."""
