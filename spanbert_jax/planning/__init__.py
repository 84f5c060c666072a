"""Memory and speed of a run on hardware that is not there, from compiling its train step for that hardware."""
