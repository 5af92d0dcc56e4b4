"""Engine libraries behind one protocol (`base.py`)."""
