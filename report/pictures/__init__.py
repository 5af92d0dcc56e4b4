"""The pictures of a report, drawn by matplotlib; how they look is said once, in `style.py`."""
