"""Precisions, written into portable stage graphs.

write_precision.py  int8, w8 and w4 products, each as calibration and plan say; calls the others
write_fp16.py       half precision
write_embedding.py  tables of vectors
quantise.py         weights to integers
"""
