"""Statistics over seeds: pure functions of arrays that report, docs and experiments share."""
