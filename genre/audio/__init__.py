"""Audio files: decoding, chunks, data sets, sources and tags."""
