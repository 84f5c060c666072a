"""Real processes, real signals and damaged files: a run must end as it would have ended unbroken."""
