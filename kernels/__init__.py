"""Attention operations on paged KV: append, score, select, attend, prefill.

Words used in every docstring:

- ``kv``: the cache of one layer, ``[pages, kv_heads, 2, block, head_dim]``, K at 0 and V at 1 of axis 2: a
  tensor, or ``quantise.Quantised``, the same in 8 bits. What is appended is read as it is kept, by its own
  token too. Page 0 is nobody's: padding reads and writes it, so what it holds is finite.
- ``page_table``: physical pages of each row in order of position, ``[rows, max_pages]``; entries past a
  row's last page may hold anything.
- ``lengths``: tokens of each row that are in the cache, the current one included, ``[rows]``.
- ``page_ids, counts``: a selection: physical pages ``[rows, kv_heads, k]`` in ascending order of position,
  the page of the current token last, the first ``counts [rows, kv_heads]`` entries valid.

Contract of every operation: shapes come from the configuration, lengths and tables are read from tensors,
nothing is asked of the host; so one CUDA graph can replay a step. Each file holds the plain torch path,
which is the definition of the operation, and the choice: ``cpu`` calls compiled C++, ``triton_*`` hold the
kernels for a GPU and are imported only to run there. Attention's kernel wants blocks of a power of two, at
least 8, and head dims up to 256; others take the torch path.

``norm`` and ``projection`` are what else a decode step of few rows computes; ``delta`` is for layers that
keep a state instead of KV.
"""
