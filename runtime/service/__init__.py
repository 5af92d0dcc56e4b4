"""One batch for the requests of any number of threads and event loops: an application's engine."""
