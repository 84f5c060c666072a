"""The token classification head: logits of classes at every position."""
from spanbert_jax.model.heads import ClassificationHead


class TokenClassification(ClassificationHead):
    """Classifies tokens."""
    name = "token_classification"
    description = "A classifier of tokens"
