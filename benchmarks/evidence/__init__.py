"""The evidence machine: claims of the papers as data, runs as files, verdicts as paired intervals."""
