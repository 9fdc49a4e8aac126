"""Programs that use fewbit from end to end."""
