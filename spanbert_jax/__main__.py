"""`python -m spanbert_jax COMMAND`."""
import sys

from spanbert_jax.commands import main

sys.exit(main())
