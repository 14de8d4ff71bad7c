"""Where events come from besides a producer of your own: files and a simulated shop."""
