"""Search at several granularities (MGAS, arXiv 2310.15074): gates, learned thresholds and masks around a stand-alone
network, what makes it physically smaller, and the order in which that happens.
"""
