//! The memory devices, mem(4), null(4), random(4): major number 1.

use std::sync::Arc;

use moat_abi::stat::DeviceId;
use moat_abi::tty::RNDGETENTCNT;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_mm::mappable::{FileIdentity, MapFile, MapName, Mappable, SharedAnon, Sharing};
use moat_platform::MapSource;
use moat_vfs::OpenFile;
use moat_vfs::caller::Caller;
use moat_vfs::file::{File, Seekable};
use moat_vfs::inode::OpenContext;
use moat_vfs::persist::{Compare, SaveFiles};

/// The major number of memory devices.
pub const MAJOR: u32 = 1;
const NULL: u32 = 3;
const ZERO: u32 = 5;
const FULL: u32 = 7;
const RANDOM: u32 = 8;
const URANDOM: u32 = 9;

/// Registers the drivers.
pub fn register(registry: &mut moat_vfs::Registry) {
    for minor in [NULL, ZERO, FULL, RANDOM, URANDOM] {
        registry.char_device(DeviceId::new(MAJOR, minor), open);
    }
}

fn open(dev: DeviceId, _ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    Ok(match dev.minor {
        NULL => Arc::new(Null),
        ZERO => Arc::new(Zero { full: Full::No }),
        FULL => Arc::new(Zero { full: Full::Yes }),
        RANDOM | URANDOM => Arc::new(Random),
        _ => return Err(Errno::ENXIO),
    })
}

/// /dev/null.
struct Null;

impl File for Null {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, _f: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Ok(0)
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        Ok(buf.len())
    }

    fn ignores_bytes(&self) -> bool {
        true
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        // A device has no end: the position stays at 0.
        self.write(f, buf, 0).map(|n| (n, 0))
    }

    fn seekable(&self) -> Seekable {
        Seekable::Zero
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    No,
    Yes,
}

/// /dev/zero and /dev/full.
struct Zero {
    full: Full,
}

impl File for Zero {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        buf.fill(0);
        Ok(buf.len())
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        match self.full {
            Full::Yes => Err(Errno::ENOSPC),
            Full::No => Ok(buf.len()),
        }
    }

    fn ignores_bytes(&self) -> bool {
        true
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        self.write(f, buf, 0).map(|n| (n, 0))
    }

    fn seekable(&self) -> Seekable {
        Seekable::Zero
    }

    fn mappable(self: Arc<Self>, f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        // Its driver has no mmap.
        if self.full == Full::Yes {
            return Err(Errno::ENODEV);
        }
        let meta = self.metadata(f)?;
        let name =
            MapName { identity: FileIdentity { dev: meta.dev.to_raw(), ino: meta.ino }, path: f.path().text(None) };
        Ok(Arc::new(ZeroMapping { name, shared: std::sync::OnceLock::new() }))
    }
}

/// A mapping of /dev/zero: fresh memory, private or shared.
struct ZeroMapping {
    name: MapName,
    shared: std::sync::OnceLock<SharedAnon>,
}

impl Mappable for ZeroMapping {
    fn map_source(&self, what: &MapFile<'_>) -> Result<MapSource> {
        // As Linux does it: anonymous memory that only shows the device's name.
        if what.sharing == Sharing::Private {
            return Ok(MapSource::AnonPrivate { noreserve: false });
        }
        let end = what.offset.checked_add(what.len).ok_or(Errno::EINVAL)?;
        if self.shared.get().is_none() {
            // Lost races leave the first one in place.
            let _ = self.shared.set(SharedAnon::new(what.ids, end)?);
        }
        self.shared.get().ok_or(Errno::ENOMEM)?.map_source(what)
    }

    fn identity(&self) -> FileIdentity {
        self.shared.get().map_or(self.name.identity, Mappable::identity)
    }

    fn describe(&self) -> MapName {
        self.name.clone()
    }
}

/// /dev/random and /dev/urandom: the host's generator, which is seeded.
struct Random;

impl File for Random {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        // getrandom(2) gives less than 32 MiB at once, and stops at a signal.
        let mut done = 0;
        while done < buf.len() {
            match rustix::rand::getrandom(&mut buf[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(done)
    }

    /// What is written would be mixed into the pool; the host's is not the guest's to stir.
    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        Ok(buf.len())
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        self.write(f, buf, 0).map(|n| (n, 0))
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        (PollEvents::READABLE - PollEvents::RDHUP - PollEvents::ALWAYS) | PollEvents::OUT | PollEvents::WRNORM
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        // The pool is always full.
        if cmd != RNDGETENTCNT {
            return Err(Errno::EINVAL);
        }
        caller.write_user(arg, &256i32.to_ne_bytes()).map(|()| 0)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Zero
    }
}
