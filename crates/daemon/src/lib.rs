//! The backends: containers, exec, checkpoints, images, volumes, networks, events, system.
