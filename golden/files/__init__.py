"""Readers and writers of model files, in the project's own format and in foreign ones."""
