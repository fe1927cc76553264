"""The REST service: one student in microseconds, anything else with care, closed unless it is opened on purpose. `studperf serve` runs it."""
