"""Where the metrics of a run go: JSON lines always, TensorBoard and registered trackers as `config.trackers` says."""
from spanbert_jax.training.trackers.json_lines import METRICS_FILE, JsonLines, read_metrics
from spanbert_jax.training.trackers.tracker import TRACKERS, Metrics, Tracker
from spanbert_jax.training.trackers.writer import MetricsWriter

__all__ = ["METRICS_FILE", "TRACKERS", "JsonLines", "Metrics", "MetricsWriter", "Tracker", "read_metrics"]
