"""This machine's rates, for a forecast: each from a measurement of its own, none of them of the model that is asked about."""
