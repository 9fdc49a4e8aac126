"""Papers' headline claims beside what is measured here."""
