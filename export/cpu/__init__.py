"""Stage graphs to what ONNX Runtime's CPU provider runs best.

lower.py      all of it
attention.py  attention that costs by the length used
products.py   kernels for quantised products, and whether they arrived
counters.py   what the host counts for the engine
"""
