"""Web: the HTTP service and the page."""
