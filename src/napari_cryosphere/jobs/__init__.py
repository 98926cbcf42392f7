"""One frozen config and one generator of events for every verb. Import from the modules.

A job is a function from its config to an iterator of `napari_cryosphere.jobs.events.Event`; the
last event is a `Result`. The command line and the docks only render what a job yields, and stop it
by closing it.
"""
