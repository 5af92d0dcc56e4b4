"""Latency, memory and distance from the roofline, measured; raw samples kept."""
