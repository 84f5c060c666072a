"""Fine-tuning: a task's examples as what a run learns, its best network stored, several seeds and grids of settings."""
