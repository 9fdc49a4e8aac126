"""What each multiply-accumulate unit computes."""
