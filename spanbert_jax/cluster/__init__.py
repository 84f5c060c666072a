"""The processes of a run: joining, agreeing on values, stopping, locking a workdir, exit statuses."""
