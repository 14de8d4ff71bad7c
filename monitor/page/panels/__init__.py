"""The panels of the overview; each builds its elements once and updates what they show."""
