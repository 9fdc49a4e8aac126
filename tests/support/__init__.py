"""What several test files share: benches, drawn layers, writers of TFLite files, exact sums."""
