//! Free TCP ports that stay ours: a port is reserved by a locked file until this process ends, so that
//! tests running side by side never hand out the same one.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which Linux picks the ports of outgoing connections (32768 and up).
const FIRST: u16 = 21000;
const COUNT: u16 = 11000;

static NEXT: AtomicU16 = AtomicU16::new(0);
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nothing listens on and that no other test process was given.
///
/// # Panics
/// When no port can be had at all.
pub fn free() -> u16 {
    let folder = std::env::temp_dir().join("celeriac-testkit-ports");
    let _ = fs::create_dir_all(&folder);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step % COUNT) % COUNT;
        let Ok(file) = File::options().create(true).append(true).open(folder.join(port.to_string())) else {
            continue;
        };
        if file.try_lock().is_err() || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        if let Ok(mut held) = HELD.lock() {
            held.push(file);
        }
        return port;
    }
    crate::program::give_up("no free TCP port between 21000 and 31999")
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_calls_give_two_ports() {
        assert_ne!(super::free(), super::free());
    }
}
