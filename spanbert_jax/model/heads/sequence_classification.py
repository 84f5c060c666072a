"""The sequence classification head: logits of classes from the pooled vector of a text."""
from spanbert_jax.model.heads import POOLED, ClassificationHead


class SequenceClassification(ClassificationHead):
    """Classifies texts."""
    name = "sequence_classification"
    description = "A classifier of texts"
    inputs = (POOLED,)
    per_text = True
