"""Planning: what a run would need and how fast it would be on hardware that is not there, by compiling its step."""
