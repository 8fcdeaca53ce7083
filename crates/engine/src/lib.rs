//! Engine and Job: named, traceable units of work.
