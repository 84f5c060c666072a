"""Fine-tuning: training on the examples of a task, storing the best model, sweeps over seeds and settings."""
