//! Trees to tar and back: whiteouts, xattrs, hostile archives.
