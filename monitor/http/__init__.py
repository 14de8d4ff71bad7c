"""HTTP below the routes: connections, access checks, errors and event streams."""
