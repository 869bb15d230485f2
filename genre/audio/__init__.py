"""Audio: everything that touches an audio file goes through ffmpeg here."""
