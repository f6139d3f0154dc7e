"""What a method compares in a step: taps of student and teacher, adapters, losses."""
