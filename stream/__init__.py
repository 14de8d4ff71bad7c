"""Events in, messages out: the log, the engine that wires everything, the command line."""
