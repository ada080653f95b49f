//! Metrics.
use super::Admin;
use axum::extract::State;
use std::sync::Arc;
pub(crate) struct Served {}
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> String {
    let _ = (&admin.served, admin.started_unix);
    String::new()
}
