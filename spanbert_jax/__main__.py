"""`python -m spanbert_jax VERB`."""
import sys

from spanbert_jax.commands import main

sys.exit(main())
