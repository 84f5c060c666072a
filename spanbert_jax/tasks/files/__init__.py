"""Files of examples: tables and JSON of any size, and the layouts of each kind of task."""
