//! Options in an image, and out of it.

use moat_abi::socket::{AF_INET, AF_INET6};
use moat_identity::NetNamespace;
use moat_image::state::InetOptionsState;
use moat_image::{ImageError, Refusal};
use moat_sync::{LockClass, Mutex};

use super::{CONGESTION, InetOptions, MSS, Values, find};
use crate::device::{LO_INDEX, LO_NAME};

impl InetOptions {
    /// All of them.
    ///
    /// # Errors
    /// Memberships on, and a binding to, another device than the loopback's: whether there will be one of its number nobody knows.
    pub(crate) fn save(&self) -> Result<InetOptionsState, Refusal> {
        let values = self.values.lock();
        if values.groups.iter().any(|(device, _)| *device != LO_INDEX) {
            return Err(Refusal::new("a socket that has joined a multicast group"));
        }
        if values.device.as_ref().is_some_and(|(device, _)| *device != LO_INDEX) {
            return Err(Refusal::new("a socket that is bound to a device"));
        }
        Ok(InetOptionsState {
            numbers: values.numbers.iter().map(|((level, name), value)| (*level, *name, *value)).collect(),
            max_segment: values.max_segment,
            congestion: CONGESTION.get(values.congestion).copied().unwrap_or_default().to_vec(),
            multicast_if: values.multicast_if,
            multicast_device: values.multicast_device,
            groups: values.groups.iter().map(|(_, group)| *group).collect(),
            on_loopback: values.device.is_some(),
        })
    }

    /// The same out of an image.
    ///
    /// # Errors
    /// What setsockopt(2) would never have taken.
    pub(crate) fn restore(
        net: &NetNamespace,
        family: u16,
        saved: &InetOptionsState,
    ) -> Result<InetOptions, ImageError> {
        let wrong = |what: &str| ImageError::state(format!("a socket's {what}"));
        if family != AF_INET && family != AF_INET6 {
            return Err(wrong("address family"));
        }
        let mut values = Values::default();
        for (level, name, value) in &saved.numbers {
            let number = find(*level, *name).map_err(|_| wrong("options"))?;
            if !(number.min..=number.max).contains(value) {
                return Err(wrong("options"));
            }
            values.numbers.insert((*level, *name), *value);
        }
        let congestion = CONGESTION.iter().position(|name| **name == saved.congestion);
        values.congestion = congestion.ok_or_else(|| wrong("congestion control"))?;
        if u32::try_from(saved.max_segment).map_or(true, |bytes| bytes > MSS) {
            return Err(wrong("largest segment"));
        }
        values.max_segment = saved.max_segment;
        values.multicast_if = saved.multicast_if;
        values.multicast_device = saved.multicast_device;
        values.device = saved.on_loopback.then(|| (LO_INDEX, LO_NAME.as_bytes().to_vec()));
        let options = InetOptions { family, values: Mutex::new(LockClass::Leaf, values) };
        for group in &saved.groups {
            if !group.is_multicast() {
                return Err(wrong("multicast group"));
            }
            options.change_group(net, true, (LO_INDEX, *group)).map_err(|_| wrong("multicast groups"))?;
        }
        Ok(options)
    }
}
