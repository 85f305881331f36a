"""A server around one generator: rows of many callers share passes, none knows of the others."""
