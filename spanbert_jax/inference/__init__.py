"""Inference with fine-tuned models: stored with their task, run over files and texts."""
