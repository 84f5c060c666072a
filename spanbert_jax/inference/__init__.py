"""Fine-tuned networks at work: stored with their task, run over files and texts."""
