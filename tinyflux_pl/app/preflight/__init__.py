"""Before the first step: the data judged, memory and disk added up, a step rehearsed."""
