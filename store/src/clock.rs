//! The store's own clock, which never goes back.

use std::sync::Arc;

/// Tells the time in milliseconds since 1970. Tests bring their own.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
