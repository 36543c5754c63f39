"""The science of Skyline: architectures, costs, spaces, supernets, training, search algorithms.

No HTTP, queue, file layout or SQL; usable from a notebook. Two halves:

* the *describing half* (this package's ``architecture``, ``costs``, ``pareto``, ``values``, ``recipe``,
  ``settings``, ``search``, ``events`` and what ``spaces`` says about a space) imports without torch;
* the *running half* (``ops``, ``supernet``, ``network``, ``training``, ``evaluation``, ``algorithms``,
  ``objectives``, ``datasets``) does the work in PyTorch.
"""
