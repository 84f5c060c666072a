"""Files of examples: tables and JSON of any size, and the formats of each kind of task."""
