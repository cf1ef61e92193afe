//! [`FutexKey`]: the identity of a futex word.

use moat_abi::{Errno, Result};
use moat_platform::GUEST_TOP;

use crate::vma::{Backing, VmaFlags};
use crate::{FileIdentity, MemoryManager, UserAddr};

/// Which word a futex operation means. Equal keys wait for and wake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FutexKey {
    /// FUTEX_PRIVATE_FLAG: the address in one address space, whatever is mapped there.
    Private {
        /// [`MemoryManager::id`].
        mm_id: u64,
        /// The word.
        addr: u64,
    },
    /// No private flag, but the memory is private. Linux keeps these apart from the above (`FUT_OFF_MMSHARED`).
    Anonymous {
        /// [`MemoryManager::id`].
        mm_id: u64,
        /// The word.
        addr: u64,
    },
    /// A word in a shared mapping.
    Shared {
        /// The mapped file.
        object: FileIdentity,
        /// The word's byte offset in it.
        offset: u64,
    },
}

/// Whether an operation carries FUTEX_PRIVATE_FLAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexScope {
    /// It does.
    Private,
    /// It does not.
    Shared,
}

impl MemoryManager {
    /// The key of the word at `addr` (`get_futex_key`).
    ///
    /// # Errors
    /// EINVAL if it is not 4-byte aligned; EFAULT outside of user space, or (shared) where nothing is mapped.
    pub fn futex_key(&self, addr: UserAddr, scope: FutexScope) -> Result<FutexKey> {
        let word = addr.get();
        if !word.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        // The whole word has to be in user space.
        if word > GUEST_TOP - 4 {
            return Err(Errno::EFAULT);
        }
        let mm_id = self.id();
        // Nothing has to be mapped for this key: the operation's access to the word finds that out.
        if scope == FutexScope::Private {
            return Ok(FutexKey::Private { mm_id, addr: word });
        }
        let state = self.state();
        let vma = state.tree.find(word).ok_or(Errno::EFAULT)?;
        match &vma.backing {
            // By offset in the file, since each process has it at addresses of its own.
            Backing::File { object, .. } if vma.flags.contains(VmaFlags::SHARED) => {
                Ok(FutexKey::Shared { object: object.identity(), offset: vma.file_offset(word) })
            }
            _ => Ok(FutexKey::Anonymous { mm_id, addr: word }),
        }
    }
}
