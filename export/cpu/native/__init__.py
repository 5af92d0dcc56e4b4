"""Programs of native steps (`contract/program.py`) out of the graphs that ONNX Runtime's CPU provider runs.

write.py     a stage's program and its weights, or why there is none
tensors.py   what the tensors of a graph are, firing by firing
lower.py     nodes to steps
fuse.py      steps that become one
draft.py     steps with a buffer for every result, and the buffers that they share in the end
packing.py   weights as the library reads them
"""
