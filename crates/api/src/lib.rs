//! The Docker Engine API: routes, models, and the backend traits behind them.
