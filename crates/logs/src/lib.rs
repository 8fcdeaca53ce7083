//! Log drivers: json-file and none; reading, following, rotating.
