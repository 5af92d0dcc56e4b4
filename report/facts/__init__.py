"""From bundles and measurements to the figures of a report, one kind in each module."""
