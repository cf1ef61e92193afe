//! The host's nameservers, resolv.conf(5).

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;

/// The files that may name them; the second is where systemd-resolved keeps those behind its own address.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// As many as the C library asks (MAXNS).
const MOST: usize = 3;

/// Bytes of a file that are read.
const LONGEST_FILE: u64 = 64 << 10;

/// Those that can be reached from elsewhere than this host's own loopback device; none if no file names any.
pub(super) fn read() -> Vec<IpAddr> {
    FILES.iter().filter_map(|path| text(path)).map(|text| in_text(&text)).find(|v| !v.is_empty()).unwrap_or_default()
}

/// The first one on this host's own loopback device, if resolv.conf names one.
pub(super) fn on_loopback() -> Option<IpAddr> {
    let [path, _] = FILES;
    loopback_in_text(&text(path)?)
}

fn text(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LONGEST_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

fn named(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // A scope ("fe80::1%eth0") names a link of the host.
        if words.next() == Some("nameserver") { words.next()?.parse::<IpAddr>().ok() } else { None }
    })
}

fn in_text(text: &str) -> Vec<IpAddr> {
    named(text).filter(|ip| !ip.is_loopback() && !ip.is_unspecified()).take(MOST).collect()
}

fn loopback_in_text(text: &str) -> Option<IpAddr> {
    // What stands behind the third is never asked.
    named(text).take(MOST).find(IpAddr::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_on_the_loopback_device_are_no_use() {
        let text = "# made\nsearch a\nnameserver 127.0.0.53\nnameserver 10.0.0.2\noptions x\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        let expected: Vec<IpAddr> =
            ["10.0.0.2", "2001:db8::1", "10.0.0.3"].iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(in_text(text), expected);
        assert!(in_text("nameserver\nnameserver x\n").is_empty());
        assert_eq!(loopback_in_text(text), "127.0.0.53".parse().ok());
        assert_eq!(loopback_in_text("nameserver 10.0.0.2\nnameserver ::1\n"), "::1".parse().ok());
        assert_eq!(loopback_in_text(&"nameserver 10.0.0.2\n".repeat(3)), None);
        assert_eq!(loopback_in_text(&("nameserver 10.0.0.2\n".repeat(3) + "nameserver 127.0.0.1")), None);
    }
}
