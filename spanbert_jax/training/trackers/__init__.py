"""Where the metrics of a run go: JSON lines always, TensorBoard and registered trackers as `config.trackers` says."""
from spanbert_jax.training.trackers.json_lines import METRICS_FILE, JsonLines, read_metrics
from spanbert_jax.training.trackers.record_file import Metrics
from spanbert_jax.training.trackers.writer import TRACKERS, MetricsWriter, Tracker

__all__ = ["METRICS_FILE", "TRACKERS", "JsonLines", "Metrics", "MetricsWriter", "Tracker", "read_metrics"]
