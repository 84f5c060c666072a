"""Where the real data and the reference's vectors lie, and marks that skip a test, with the reason, without them."""
import os
import pathlib

import pytest

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
DATA = pathlib.Path(os.environ.get("SPANBERT_DATA", _SHARED / "data"))
CONFORMANCE = pathlib.Path(os.environ.get("SPANBERT_CONFORMANCE", _SHARED / "conformance"))

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"real data not found at {DATA}: set SPANBERT_DATA")
needs_conformance = pytest.mark.skipif(
    not CONFORMANCE.is_dir(), reason=f"reference vectors not found at {CONFORMANCE}: set SPANBERT_CONFORMANCE")
