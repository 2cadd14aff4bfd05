"""Several processes behind one socket: a supervisor that serves nobody, and its workers."""
