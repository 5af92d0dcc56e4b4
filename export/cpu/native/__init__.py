"""Programs of native steps (`contract/program.py`) out of the graphs that ONNX Runtime's CPU provider runs.

write.py     a stage's program and its weights, or why there is none
tensors.py   what the tensors of a graph are, firing by firing
values.py    what else its values are
lowering.py  what is known while a graph is followed
lower.py     nodes to steps: shapes.py, lookup.py, arithmetic.py, products.py, attention.py
fuse.py      steps that become one
draft.py     steps with a buffer for every result, and the buffers that they share in the end
packing.py   weights as the library reads them
"""
