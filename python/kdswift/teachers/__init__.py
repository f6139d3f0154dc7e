"""The kinds of `kd.Teacher`, one per file; people make them by the functions of that class."""
