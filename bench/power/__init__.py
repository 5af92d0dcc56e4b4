"""Power while decoding: sensors, raw samples over time, and the energy of a window of them."""
