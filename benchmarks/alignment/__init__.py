"""Is SAIL better than the same training on the same labels, and than more labels without it?

    python -m benchmarks.alignment --quick
    python -m benchmarks.alignment   # the whole table; goes on after a stop

A *unit* is one method on one taste in one repeat. Every repeat draws labels, training seeds and images anew;
methods of one repeat share labels as far as they have them, held-out prompts and noise seeds.
"""
