"""Pretraining: masked tokens, span boundaries and next sentences, learned from a prepared corpus."""
