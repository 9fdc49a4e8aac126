"""Papers' headline claims beside this project's own measurements."""
