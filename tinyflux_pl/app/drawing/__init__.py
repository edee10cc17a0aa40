"""From a request for pictures to a pipeline: checkpoint or release, adapters, caches, stages."""
