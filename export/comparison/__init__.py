"""Two computations that should agree: do they, and if not, where do they part?

verification.py      PyTorch, every graph, every engine and the running system
verify_report.py     what that compared, and how much of the model it was
compare_stages.py    two targets or bundles, stage by stage, and as systems
compare_layers.py    the same within a stage, layer by layer
bisection.py         the matrix product that a precision breaks
teacher_forcing.py   each stage run on the reference's rows, so that it is charged with its own errors only
systems.py           whose engines a comparison runs
layer_prefixes.py    a stage cut after each of its layers
weights.py           the weights of graphs and engines, number by number
paired.py            an engine beside the one it should agree with
probe.py             one call of a stage at any position
portable_engines.py  portable graphs on ONNX Runtime, as they are
torch_engine.py      a stage computed by PyTorch
errors.py            how far apart, and where first too far
chunks.py            how a sequence is cut into calls
"""
