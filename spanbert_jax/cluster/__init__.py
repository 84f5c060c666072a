"""The processes of a run: how they join, agree, stop, lock a workdir and end."""
