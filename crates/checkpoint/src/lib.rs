//! What a checkpoint is: manifest, layout, store, pre-flight.
