"""Features: the transform table, the engines that compute them, the CSV and the vectors."""
