"""Trials on a Ray cluster: plain long-lived actors, one a worker, one a target device.

Not Ray Tune: there a trial gets a fresh actor unless its class is written to be reset (50 trivial trials took 372 s
instead of 6), a metric that is missing ends the whole run, one that is NaN leaves trials running for ever, and Tune's
own snapshots lag behind the study's storage, which has to be the only truth. Who runs Tune already takes
:class:`autoprune.search.ray.searcher.StudySearcher`.
"""
