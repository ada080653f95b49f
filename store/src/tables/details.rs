//! What only operators read of a device. The embedded store leaves it to its database.

use std::collections::HashMap;

use otter_protocol::DeviceId;

use super::change::KeptDevice;

/// Details of all devices.
#[derive(Debug, Default)]
pub(crate) struct Details(HashMap<DeviceId, Detail>);

/// Details of one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Detail {
    /// Unix seconds.
    pub(crate) registered: u64,
    pub(crate) facts: Box<str>,
    pub(crate) push: Option<Box<str>>,
}

impl Details {
    /// What is known of a device.
    pub(crate) fn of(&self, device: DeviceId) -> Detail {
        self.0.get(&device).cloned().unwrap_or_default()
    }

    pub(crate) fn keep(&mut self, kept: &KeptDevice) {
        let detail = self.0.entry(kept.facts.udid).or_default();
        if let Some(registered) = kept.registered {
            detail.registered = registered;
        }
        if let Some(facts) = &kept.details {
            detail.facts.clone_from(facts);
        }
    }

    pub(crate) fn keep_push(&mut self, device: DeviceId, push: &str) {
        self.0.entry(device).or_default().push = Some(push.into());
    }
}
